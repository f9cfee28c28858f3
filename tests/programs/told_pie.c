// flags: -pie -fPIE
#define EXECUTABLE_STACK 0
#include "told.h"
