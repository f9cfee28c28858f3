// The same as a 32-bit program.
#include "../ports.c"
