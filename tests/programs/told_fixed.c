// flags: -no-pie
#define EXECUTABLE_STACK 0
#include "told.h"
