// Whether 32-bit programs can be compiled and run.
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	return sizeof(void *) == 4 && syscall(SYS_getpid) > 0 && SYS_socketcall == 102 ? 0 : 1;
}
