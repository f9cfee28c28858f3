// Calls with pointers into nowhere, and with descriptors that are not open, straight to the kernel.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static int wrong;

#define EXPECT(error, call) expect(#call, call, error)

static void expect(const char *name, long result, int error)
{
	if (result == -1 && errno == error)
		return;
	printf("%s: %ld, %s, not %s\n", name, result, strerror(errno), strerror(error));
	wrong = 1;
}

int main(void)
{
	void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct open_how how = { .flags = O_RDONLY };
	char *unended = edge + 4096 - 4;

	munmap(edge + 4096, 4096);
	memset(edge, 'x', 4096);
	memcpy(unended, "/etc", 4);

	EXPECT(EFAULT, syscall(SYS_open, bad, O_RDONLY));
	EXPECT(EFAULT, syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY));
	EXPECT(EFAULT, syscall(SYS_openat, -1, bad, O_RDONLY));
	EXPECT(EFAULT, syscall(SYS_openat, AT_FDCWD, unended, O_RDONLY));
	EXPECT(EFAULT, syscall(SYS_openat2, AT_FDCWD, "/", bad, sizeof how));
	EXPECT(EFAULT, syscall(SYS_openat2, AT_FDCWD, bad, &how, sizeof how));
	EXPECT(EFAULT, syscall(SYS_stat, "/", bad));
	EXPECT(EFAULT, syscall(SYS_stat, bad, bad));
	EXPECT(EFAULT, syscall(SYS_lstat, unended, edge));
	EXPECT(EFAULT, syscall(SYS_fstat, 0, bad));
	EXPECT(EFAULT, syscall(SYS_newfstatat, AT_FDCWD, "/", bad, 0));
	EXPECT(EFAULT, syscall(SYS_statx, AT_FDCWD, "/", 0, STATX_BASIC_STATS, bad));
	EXPECT(EFAULT, syscall(SYS_statfs, "/", bad));
	EXPECT(EFAULT, syscall(SYS_access, bad, F_OK));
	EXPECT(EFAULT, syscall(SYS_mkdir, bad, 0700));
	EXPECT(EFAULT, syscall(SYS_rmdir, unended));
	EXPECT(EFAULT, syscall(SYS_unlink, bad));
	EXPECT(EFAULT, syscall(SYS_link, "/etc/passwd", bad));
	EXPECT(EFAULT, syscall(SYS_symlink, bad, "new"));
	EXPECT(EFAULT, syscall(SYS_symlink, "target", bad));
	EXPECT(EFAULT, syscall(SYS_rename, bad, "new"));
	EXPECT(EFAULT, syscall(SYS_rename, ".", bad));
	EXPECT(EFAULT, syscall(SYS_chmod, bad, 0700));
	EXPECT(EFAULT, syscall(SYS_chown, bad, -1, -1));
	EXPECT(EFAULT, syscall(SYS_fchownat, AT_FDCWD, NULL, -1, -1, AT_EMPTY_PATH));
	EXPECT(EINVAL, syscall(SYS_utimensat, 0, NULL, NULL, AT_EMPTY_PATH));
	EXPECT(EFAULT, syscall(SYS_chdir, bad));
	EXPECT(EFAULT, syscall(SYS_getcwd, bad, 4096));
	EXPECT(EFAULT, syscall(SYS_readlink, "/proc/self/exe", bad, 100));
	EXPECT(EFAULT, syscall(SYS_truncate, bad, 0));
	EXPECT(EFAULT, syscall(SYS_utimensat, AT_FDCWD, "/", bad, 0));
	EXPECT(EFAULT, syscall(SYS_execve, bad, NULL, NULL));
	EXPECT(EFAULT, syscall(SYS_execve, "/bin/true", bad, NULL));
	EXPECT(EFAULT, syscall(SYS_getxattr, "/", bad, NULL, 0));
	EXPECT(EFAULT, syscall(SYS_inotify_add_watch, syscall(SYS_inotify_init1, 0), bad, 1));
	EXPECT(EFAULT, syscall(SYS_getdents64, open(".", O_RDONLY), bad, 4096));
	EXPECT(EFAULT, syscall(SYS_bind, socket(AF_UNIX, SOCK_STREAM, 0), bad, 20));

	EXPECT(EBADF, syscall(SYS_openat, 999, "x", O_RDONLY));
	EXPECT(EBADF, syscall(SYS_openat, -1, "x", O_RDONLY));
	EXPECT(EBADF, syscall(SYS_newfstatat, 999, "x", edge, 0));
	EXPECT(EBADF, syscall(SYS_mkdirat, 999, "x", 0700));
	EXPECT(EBADF, syscall(SYS_unlinkat, 999, "x", 0));
	EXPECT(EBADF, syscall(SYS_renameat2, 999, "x", AT_FDCWD, "y", 0));
	EXPECT(EBADF, syscall(SYS_fchdir, 999));
	EXPECT(EBADF, syscall(SYS_fchmod, 999, 0700));
	EXPECT(EBADF, syscall(SYS_fchown, 999, -1, -1));
	EXPECT(EBADF, syscall(SYS_fstat, 999, edge));
	EXPECT(EBADF, syscall(SYS_fgetxattr, 999, "user.x", NULL, 0));
	EXPECT(ENOENT, syscall(SYS_openat, 999, "", O_RDONLY));
	if (syscall(SYS_newfstatat, 999, "/", edge, 0) != 0) {
		printf("an absolute path minds its descriptor: %s\n", strerror(errno));
		wrong = 1;
	}
	if (!wrong)
		puts("all EFAULT");
	return wrong;
}
