// flags: -z execstack -Wl,--no-warn-execstack
#define EXECUTABLE_STACK 1
#include "told.h"
