// flags: -Wl,-z,max-page-size=0x200000
#define EXECUTABLE_STACK 0
#include "told.h"
