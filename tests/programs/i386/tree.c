// Names, directories, times and attributes of files, by the calls of each generation.
#include "facts.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void touch(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0644);

	CHECK(fd >= 0 && close(fd) == 0);
}

static void names_are_made_and_removed(void)
{
	char text[16];

	CHECK(syscall(SYS_mkdir, "dir", 0755) == 0 && syscall(SYS_mkdirat, AT_FDCWD, "dir/sub", 0700) == 0);
	touch("dir/file");
	CHECK(syscall(SYS_link, "dir/file", "dir/hard") == 0 && syscall(SYS_symlink, "file", "dir/soft") == 0);
	CHECK(syscall(SYS_linkat, AT_FDCWD, "dir/file", AT_FDCWD, "dir/hard2", 0) == 0);
	CHECK(syscall(SYS_symlinkat, "file", AT_FDCWD, "dir/soft2") == 0);
	CHECK(syscall(SYS_readlink, "dir/soft", text, sizeof text) == 4 && memcmp(text, "file", 4) == 0);
	CHECK(syscall(SYS_readlinkat, AT_FDCWD, "dir/soft2", text, 2) == 2);
	CHECK(syscall(SYS_mknod, "dir/fifo", S_IFIFO | 0600, 0) == 0);
	CHECK(syscall(SYS_rename, "dir/hard", "dir/other") == 0);
	CHECK(syscall(SYS_renameat, AT_FDCWD, "dir/other", AT_FDCWD, "dir/hard") == 0);
	FAILS(EEXIST, syscall(SYS_renameat2, AT_FDCWD, "dir/hard", AT_FDCWD, "dir/file", 1));
	CHECK(syscall(SYS_access, "dir/file", R_OK | W_OK) == 0 && syscall(SYS_faccessat, AT_FDCWD, "dir", X_OK) == 0);
	CHECK(syscall(SYS_chmod, "dir/file", 0600) == 0 && syscall(SYS_fchmodat, AT_FDCWD, "dir/file", 0640) == 0);
	FAILS(ENOTEMPTY, syscall(SYS_rmdir, "dir"));
	CHECK(syscall(SYS_unlink, "dir/hard") == 0 && syscall(SYS_unlinkat, AT_FDCWD, "dir/hard2", 0) == 0);
	CHECK(syscall(SYS_unlinkat, AT_FDCWD, "dir/sub", AT_REMOVEDIR) == 0);
	FAILS(ENOENT, syscall(SYS_rmdir, "dir/sub"));
	FAILS(ENOENT, syscall(SYS_open, "dir/missing", O_RDONLY));
	FAILS(EISDIR, syscall(SYS_open, "dir", O_WRONLY));
	FAILS(ENOTDIR, syscall(SYS_chdir, "dir/file"));
}

struct old_entry {
	uint32_t ino, offset;
	uint16_t length;
	char name[];
};

static void directories_are_read_by_each_form(void)
{
	char buffer[4096], name[32];
	unsigned count = 0, wide_count = 0, single = 0, kinds = 0;
	int fd, got, many;
	uint64_t large = 0;

	CHECK(mkdir("dir", 0755) == 0 && mkdir("dir/sub", 0755) == 0);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "dir/name-of-file-%d", i);
		touch(name);
	}
	fd = open("dir", O_RDONLY | O_DIRECTORY);
	while ((many = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
		for (int at = 0; at < many; at += ((struct dirent64 *)(buffer + at))->d_reclen) {
			struct dirent64 *entry = (struct dirent64 *)(buffer + at);

			large |= entry->d_ino >> 32;
			wide_count++;
			kinds += entry->d_type == DT_DIR;
		}
	CHECK(many == 0 && wide_count == 303 && kinds == 3);
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	if (large) {
		// Numbers of more than 32 bits, as of some unions.
		got = syscall(SYS_getdents, fd, buffer, sizeof buffer);
		CHECK(got > 0 || errno == EOVERFLOW);
		return;
	}
	kinds = 0;
	while ((many = syscall(SYS_getdents, fd, buffer, sizeof buffer)) > 0)
		for (int at = 0; at < many; at += ((struct old_entry *)(buffer + at))->length) {
			struct old_entry *entry = (struct old_entry *)(buffer + at);

			CHECK(entry->length % 4 == 0 && strlen(entry->name) + 12 <= entry->length);
			count++;
			kinds += buffer[at + entry->length - 1] == DT_DIR;
		}
	CHECK(many == 0 && count == 303 && kinds == 3);
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	while ((got = syscall(SYS_readdir, fd, buffer, 1)) == 1) {
		struct old_entry *entry = (struct old_entry *)buffer;

		CHECK(strlen(entry->name) == entry->length);
		single++;
	}
	CHECK(got == 0 && single == 303);
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	FAILS(EINVAL, syscall(SYS_getdents, fd, buffer, 8));
	FAILS(EFAULT, syscall(SYS_getdents, fd, 8, 4096));
	FAILS(EBADF, syscall(SYS_getdents, -1, buffer, sizeof buffer));
}

static void positions_in_directories_are_kept(void)
{
	struct dirent *entry;
	char third[256];
	DIR *dir;
	long at;

	CHECK(mkdir("dir", 0755) == 0);
	touch("dir/one");
	touch("dir/two");
	touch("dir/three");
	dir = opendir("dir");
	CHECK(dir && readdir(dir) && readdir(dir));
	at = telldir(dir);
	entry = readdir(dir);
	CHECK(entry);
	strcpy(third, entry->d_name);
	CHECK(readdir(dir));
	seekdir(dir, at);
	entry = readdir(dir);
	CHECK(entry && strcmp(third, entry->d_name) == 0);
	rewinddir(dir);
	int count = 0;
	while (readdir(dir))
		count++;
	CHECK(count == 5);
}

static void the_working_directory_is_told(void)
{
	char before[4096], after[4096];
	int length = syscall(SYS_getcwd, before, sizeof before), fd;

	CHECK(length > 1 && before[0] == '/' && before[length - 1] == 0);
	CHECK(mkdir("sub", 0755) == 0 && syscall(SYS_chdir, "sub") == 0);
	CHECK(syscall(SYS_getcwd, after, sizeof after) == length + 4 && strcmp(after + length - 1, "/sub") == 0);
	FAILS(ERANGE, syscall(SYS_getcwd, after, 3));
	fd = open("..", O_RDONLY);
	CHECK(fd >= 0 && syscall(SYS_fchdir, fd) == 0);
	CHECK(syscall(SYS_getcwd, after, sizeof after) == length && strcmp(before, after) == 0);
}

static void expect_times(const char *path, int64_t access, uint32_t access_nano, int64_t change, uint32_t change_nano)
{
	struct statx status;

	CHECK(syscall(SYS_statx, AT_FDCWD, path, 0, STATX_BASIC_STATS, &status) == 0);
	CHECK(status.stx_atime.tv_sec == access && status.stx_atime.tv_nsec == access_nano);
	CHECK(status.stx_mtime.tv_sec == change && status.stx_mtime.tv_nsec == change_nano);
}

static void times_are_set_by_each_form(void)
{
	int32_t two[2] = { 1000, -2000 }, four[4] = { 5, 6, 7, 8 }, nano[4] = { 100, 999999999, 0, UTIME_OMIT };
	int64_t wide[4] = { 1ll << 32, 5 | 7ll << 32, -1, 9 };

	touch("file");
	CHECK(syscall(SYS_utime, "file", two) == 0);
	expect_times("file", 1000, 0, -2000, 0);
	CHECK(syscall(SYS_utimes, "file", four) == 0);
	expect_times("file", 5, 6000, 7, 8000);
	four[1] = 1000000;
	FAILS(EINVAL, syscall(SYS_utimes, "file", four));
	four[1] = -1;
	FAILS(EINVAL, syscall(SYS_futimesat, AT_FDCWD, "file", four));
	four[1] = 1;
	CHECK(syscall(SYS_futimesat, AT_FDCWD, "file", four) == 0);
	expect_times("file", 5, 1000, 7, 8000);
	CHECK(syscall(SYS_utimensat, AT_FDCWD, "file", nano, 0) == 0);
	expect_times("file", 100, 999999999, 7, 8000);
	nano[1] = 1000000000;
	FAILS(EINVAL, syscall(SYS_utimensat, AT_FDCWD, "file", nano, 0));
	CHECK(syscall(SYS_utimensat_time64, AT_FDCWD, "file", wide, 0) == 0);
	expect_times("file", 1ll << 32, 5, -1, 9);
	FAILS(EFAULT, syscall(SYS_utime, "file", 8));
	CHECK(syscall(SYS_utime, "file", NULL) == 0);
	CHECK(syscall(SYS_utimensat, AT_FDCWD, "file", NULL, 0) == 0);
	FAILS(ENOENT, syscall(SYS_utime, "missing", two));
}

static void attributes_are_kept(void)
{
	char value[8];
	int fd;

	touch("file");
	fd = open("file", O_RDWR);
	CHECK(syscall(SYS_setxattr, "file", "user.one", "abc", 3, 0) == 0);
	CHECK(syscall(SYS_fsetxattr, fd, "user.two", "de", 2, XATTR_CREATE) == 0);
	CHECK(syscall(SYS_getxattr, "file", "user.two", value, sizeof value) == 2 && memcmp(value, "de", 2) == 0);
	CHECK(syscall(SYS_fgetxattr, fd, "user.one", NULL, 0) == 3);
	FAILS(ERANGE, syscall(SYS_lgetxattr, "file", "user.one", value, 2));
	CHECK(syscall(SYS_removexattr, "file", "user.one") == 0);
	FAILS(ENODATA, syscall(SYS_getxattr, "file", "user.one", value, sizeof value));
	FAILS(EEXIST, syscall(SYS_lsetxattr, "file", "user.two", "f", 1, XATTR_CREATE));
}

static void changes_are_watched(void)
{
	char buffer[512];
	int fd = syscall(SYS_inotify_init1, IN_CLOEXEC), watch;
	struct inotify_event *event = (struct inotify_event *)buffer;

	CHECK(fd >= 0 && mkdir("dir", 0755) == 0);
	watch = syscall(SYS_inotify_add_watch, fd, "dir", IN_CREATE);
	CHECK(watch >= 0);
	touch("dir/new");
	CHECK(read(fd, buffer, sizeof buffer) > 0 && event->wd == watch && strcmp(event->name, "new") == 0);
	FAILS(ENOENT, syscall(SYS_inotify_add_watch, fd, "missing", IN_CREATE));
}

static void a_mask_of_two_words_marks(void)
{
	int fd = syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY);

	if (fd < 0) {
		CHECK(errno == ENOSYS || errno == EPERM);
		return;
	}
	CHECK(mkdir("dir", 0755) == 0);
	CHECK(syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD, FAN_CREATE, 0, AT_FDCWD, "dir") == 0 || errno == ENODEV || errno == EXDEV);
	FAILS(EINVAL, syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD, FAN_CREATE, 0x80000000, AT_FDCWD, "dir"));
}

static const struct fact facts[] = {
	{ "names_are_made_and_removed", names_are_made_and_removed },
	{ "directories_are_read_by_each_form", directories_are_read_by_each_form },
	{ "positions_in_directories_are_kept", positions_in_directories_are_kept },
	{ "the_working_directory_is_told", the_working_directory_is_told },
	{ "times_are_set_by_each_form", times_are_set_by_each_form },
	{ "attributes_are_kept", attributes_are_kept },
	{ "changes_are_watched", changes_are_watched },
	{ "a_mask_of_two_words_marks", a_mask_of_two_words_marks },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return check_fact(facts, argc, argv);
}
