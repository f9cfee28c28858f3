// flags: -no-pie -fno-pie
// A program that must be at one address.
#include <stdio.h>

int main(void)
{
	puts("hello from a fixed address");
	return 0;
}
