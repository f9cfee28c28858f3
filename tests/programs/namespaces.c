// Children with namespaces of their own: by clone and clone3, in their order of checks. `namespaces WHAT`; says what is
// wrong and fails, or says nothing.
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

static char stack[65536];

static int renames(void *name)
{
	struct utsname names;

	CHECK(sethostname(name, strlen(name)) == 0);
	CHECK(uname(&names) == 0);
	CHECK(strcmp(names.nodename, name) == 0);
	return 7;
}

static void returns_seven(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static long clone3(struct clone_args *args)
{
	return syscall(SYS_clone3, args, sizeof *args);
}

/* The registers that a call leaves alone are as they were, in parent and child. */
static long checked_clone(unsigned long flags)
{
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;
	long rax = SYS_clone, rdi = (long)flags, rsi = 0, rdx = 0;

	__asm__ volatile("syscall" : "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8) : : "rcx", "r11", "memory");
	CHECK(rdi == (long)flags && rsi == 0 && rdx == 0 && r10 == 0 && r8 == 0);
	return rax;
}

static void children(void)
{
	struct clone_args args = { .flags = CLONE_NEWUTS, .exit_signal = SIGCHLD };
	struct utsname before, after;
	volatile unsigned char zone[128];
	pid_t pid;

	CHECK(uname(&before) == 0);
	memset((void *)zone, 0x5a, sizeof zone);
	pid = clone(renames, stack + sizeof stack, CLONE_NEWUTS | SIGCHLD, "by-clone");
	returns_seven(pid);
	pid = clone(renames, stack + sizeof stack, CLONE_NEWUTS | CLONE_VM | CLONE_VFORK | SIGCHLD, "by-vfork");
	returns_seven(pid);
	pid = (pid_t)clone3(&args);
	if (pid == 0)
		_exit(renames("by-clone3"));
	returns_seven(pid);
	CHECK(args.flags == CLONE_NEWUTS);
	pid = (pid_t)checked_clone(CLONE_NEWUTS | SIGCHLD);
	if (pid == 0)
		_exit(renames("by-registers"));
	returns_seven(pid);
	for (unsigned i = 0; i < sizeof zone; i++)
		CHECK(zone[i] == 0x5a);
	CHECK(uname(&after) == 0);
	CHECK(strcmp(before.nodename, after.nodename) == 0);
}

static void refuses(unsigned long flags, int with)
{
	errno = 0;
	CHECK(syscall(SYS_clone, flags, 0, 0, 0, 0) == -1);
	if (errno != with)
		fprintf(stderr, "clone(%#lx): ", flags);
	CHECK(errno == with);
}

static void mistakes(void)
{
	struct clone_args args = { .flags = CLONE_NEWUTS | CLONE_FS | CLONE_NEWNS, .exit_signal = SIGCHLD };

	refuses(CLONE_NEWNS | CLONE_FS | SIGCHLD, EINVAL);
	refuses(CLONE_NEWUSER | CLONE_FS | SIGCHLD, EINVAL);
	refuses(CLONE_NEWUTS | CLONE_SIGHAND | SIGCHLD, EINVAL);
	refuses(CLONE_NEWUTS | CLONE_THREAD | SIGCHLD, EINVAL);
	refuses(CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, EINVAL);
	refuses(CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, EINVAL);
	refuses(CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, EINVAL);
	CHECK(clone3(&args) == -1 && errno == EINVAL);
	CHECK(syscall(SYS_clone3, (void *)16, sizeof args) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_clone3, &args, 63) == -1 && errno == EINVAL);
}

static void without_privilege(void)
{
	refuses(CLONE_NEWUTS | SIGCHLD, EPERM);
	refuses(CLONE_NEWNS | SIGCHLD, EPERM);
	refuses(CLONE_NEWIPC | SIGCHLD, EPERM);
	returns_seven(clone(renames, stack + sizeof stack, CLONE_NEWUSER | CLONE_NEWUTS | SIGCHLD, "theirs"));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "children") == 0)
		children();
	else if (strcmp(what, "mistakes") == 0)
		mistakes();
	else if (strcmp(what, "without-privilege") == 0)
		without_privilege();
	else
		CHECK(!"a known name");
	return 0;
}
