// flags: -static
#define EXECUTABLE_STACK 0
#include "told.h"
