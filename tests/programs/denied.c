// Prints "all denied" when mounts, namespaces and chroot are refused with the errno of a container.
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static int wrong;

static void expect(const char *name, long result, int error)
{
	if (result == -1 && errno == error)
		return;
	printf("%s: %ld, %s\n", name, result, strerror(errno));
	wrong = 1;
}

int main(void)
{
	struct clone_args none = { .exit_signal = SIGCHLD };

	expect("mount", mount("none", "/nonexistent", "tmpfs", 0, NULL), EPERM);
	expect("umount2", umount2("/nonexistent", 0), EPERM);
	expect("unshare", unshare(CLONE_NEWUSER), EPERM);
	expect("setns", setns(-1, 0), EPERM);
	expect("chroot", chroot("/"), EPERM);
	expect("pivot_root", syscall(SYS_pivot_root, ".", "."), EPERM);
	expect("fsopen", syscall(SYS_fsopen, "tmpfs", 0), EPERM);
	expect("fsmount", syscall(SYS_fsmount, -1, 0, 0), EPERM);
	expect("move_mount", syscall(SYS_move_mount, -1, "", -1, "", 0), EPERM);
	expect("open_tree", syscall(SYS_open_tree, -1, "/nonexistent", 0), EPERM);
	expect("clone(NEWUSER)", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM);
	expect("clone(NEWPID)", syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0), EPERM);
	expect("clone3", syscall(SYS_clone3, &none, sizeof none), ENOSYS);
	if (!wrong)
		puts("all denied");
	return wrong;
}
