// flags: -pie -fPIE
// The same for a 32-bit program.
#define EXECUTABLE_STACK 0
#include "../told.h"
