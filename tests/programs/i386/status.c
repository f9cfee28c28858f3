// What the three generations of stat and statfs tell, compared with each other.
#include "facts.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

struct first {
	uint16_t dev, ino, mode, nlink, uid, gid, rdev;
	uint32_t size, atime, mtime, ctime;
};

struct narrow {
	uint32_t dev, ino;
	uint16_t mode, nlink, uid, gid;
	uint32_t rdev, size, blksize, blocks, atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec, unused[2];
};

struct wide {
	uint64_t dev;
	uint32_t pad0, short_ino, mode, nlink, uid, gid;
	uint64_t rdev;
	uint32_t pad3;
	uint64_t size;
	uint32_t blksize;
	uint64_t blocks;
	uint32_t atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec;
	uint64_t ino;
} __attribute__((packed));

struct narrow_fs {
	uint32_t type, bsize, blocks, bfree, bavail, files, ffree, fsid[2], namelen, frsize, flags, spare[4];
};

struct wide_fs {
	uint32_t type, bsize;
	uint64_t blocks, bfree, bavail, files, ffree;
	uint32_t fsid[2], namelen, frsize, flags, spare[4];
} __attribute__((packed));

static uint16_t short_id(uint32_t id)
{
	return id > 0xffff ? 65534 : id;
}

static uint32_t device(uint64_t number)
{
	return (minor(number) & 0xff) | major(number) << 8 | (minor(number) & ~0xffu) << 12;
}

static struct statx truth(int fd, const char *path, int flags)
{
	struct statx status;

	CHECK(syscall(SYS_statx, fd, path, flags, STATX_BASIC_STATS, &status) == 0);
	return status;
}

static void same_wide(const struct wide *told, const struct statx *truth)
{
	CHECK(told->dev == device(makedev(truth->stx_dev_major, truth->stx_dev_minor)));
	CHECK(told->rdev == device(makedev(truth->stx_rdev_major, truth->stx_rdev_minor)));
	CHECK(told->ino == truth->stx_ino && told->short_ino == (uint32_t)truth->stx_ino);
	CHECK(told->mode == truth->stx_mode && told->nlink == truth->stx_nlink);
	CHECK(told->uid == truth->stx_uid && told->gid == truth->stx_gid);
	CHECK(told->size == truth->stx_size && told->blocks == truth->stx_blocks);
	CHECK(told->blksize == truth->stx_blksize);
	CHECK(told->mtime == (uint32_t)truth->stx_mtime.tv_sec && told->mtime_nsec == truth->stx_mtime.tv_nsec);
	CHECK(told->ctime == (uint32_t)truth->stx_ctime.tv_sec && told->ctime_nsec == truth->stx_ctime.tv_nsec);
	// Following a link changes its time of access.
	CHECK(S_ISLNK(told->mode) || told->atime == (uint32_t)truth->stx_atime.tv_sec);
	CHECK(S_ISLNK(told->mode) || told->atime_nsec == truth->stx_atime.tv_nsec);
}

static void same_narrow(int result, const struct narrow *told, const struct statx *truth)
{
	if (truth->stx_ino > 0xffffffff) {
		CHECK(result == -1 && errno == EOVERFLOW);
		return;
	}
	CHECK(result == 0);
	CHECK(told->dev == device(makedev(truth->stx_dev_major, truth->stx_dev_minor)));
	CHECK(told->rdev == device(makedev(truth->stx_rdev_major, truth->stx_rdev_minor)));
	CHECK(told->ino == truth->stx_ino && told->mode == truth->stx_mode && told->nlink == truth->stx_nlink);
	CHECK(told->uid == short_id(truth->stx_uid) && told->gid == short_id(truth->stx_gid));
	CHECK(told->size == truth->stx_size && told->blocks == truth->stx_blocks);
	CHECK(told->blksize == truth->stx_blksize);
	CHECK(told->mtime == (uint32_t)truth->stx_mtime.tv_sec && told->mtime_nsec == truth->stx_mtime.tv_nsec);
	CHECK(told->ctime == (uint32_t)truth->stx_ctime.tv_sec && told->ctime_nsec == truth->stx_ctime.tv_nsec);
	CHECK(told->unused[0] == 0 && told->unused[1] == 0);
}

static void same_first(int result, const struct first *told, const struct statx *truth)
{
	if (truth->stx_ino > 0xffff) {
		CHECK(result == -1 && errno == EOVERFLOW);
		return;
	}
	CHECK(result == 0 && told->ino == truth->stx_ino && told->mode == truth->stx_mode);
	CHECK(told->nlink == truth->stx_nlink && told->uid == short_id(truth->stx_uid));
	CHECK(told->size == (uint32_t)truth->stx_size && told->mtime == (uint32_t)truth->stx_mtime.tv_sec);
	CHECK(told->rdev == (uint16_t)(truth->stx_rdev_major << 8 | truth->stx_rdev_minor));
}

static void forms_agree_on(const char *path)
{
	struct statx followed = truth(AT_FDCWD, path, 0), itself = truth(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
	struct wide wide;
	struct narrow narrow;
	struct first first;
	int fd = open(path, O_RDONLY | O_LARGEFILE), result;

	CHECK(sizeof wide == 96 && sizeof narrow == 64 && sizeof first == 32 && fd >= 0);
	CHECK(syscall(SYS_stat64, path, &wide) == 0);
	same_wide(&wide, &followed);
	CHECK(syscall(SYS_lstat64, path, &wide) == 0);
	same_wide(&wide, &itself);
	CHECK(syscall(SYS_fstat64, fd, &wide) == 0);
	same_wide(&wide, &followed);
	CHECK(syscall(SYS_fstatat64, AT_FDCWD, path, &wide, 0) == 0);
	same_wide(&wide, &followed);
	CHECK(syscall(SYS_fstatat64, fd, "", &wide, AT_EMPTY_PATH) == 0);
	same_wide(&wide, &followed);
	result = syscall(SYS_stat, path, &narrow);
	same_narrow(result, &narrow, &followed);
	result = syscall(SYS_lstat, path, &narrow);
	same_narrow(result, &narrow, &itself);
	result = syscall(SYS_fstat, fd, &narrow);
	same_narrow(result, &narrow, &followed);
	result = syscall(SYS_oldstat, path, &first);
	same_first(result, &first, &followed);
	result = syscall(SYS_oldlstat, path, &first);
	same_first(result, &first, &itself);
	result = syscall(SYS_oldfstat, fd, &first);
	same_first(result, &first, &followed);
	close(fd);
}

static void stat_forms_agree(void)
{
	int fd = open("file", O_CREAT | O_WRONLY, 0640);

	CHECK(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
	CHECK(mkdir("dir", 0750) == 0 && symlink("file", "link") == 0 && link("file", "other") == 0);
	forms_agree_on("file");
	forms_agree_on("dir");
	forms_agree_on("link");
	forms_agree_on("/etc/passwd");
	forms_agree_on("/dev/null");
	forms_agree_on("/proc/self/status");
	forms_agree_on("/");
}

static void large_sizes_are_eoverflow(void)
{
	uint64_t size = 3ull << 30;
	struct wide wide;
	struct narrow narrow;
	int fd = open("large", O_CREAT | O_RDWR | O_LARGEFILE, 0600);
	struct { uint64_t flags, mode, resolve; } how = { O_RDONLY, 0, 0 };

	CHECK(fd >= 0);
	CHECK(syscall(SYS_ftruncate64, fd, (uint32_t)size, (uint32_t)(size >> 32)) == 0);
	FAILS(EOVERFLOW, syscall(SYS_stat, "large", &narrow));
	FAILS(EOVERFLOW, syscall(SYS_lstat, "large", &narrow));
	FAILS(EOVERFLOW, syscall(SYS_fstat, fd, &narrow));
	CHECK(syscall(SYS_stat64, "large", &wide) == 0 && wide.size == size);
	close(fd);
	FAILS(EOVERFLOW, syscall(SYS_open, "large", O_RDONLY));
	FAILS(EOVERFLOW, syscall(SYS_openat, AT_FDCWD, "large", O_WRONLY));
	fd = syscall(SYS_open, "large", O_RDONLY | O_LARGEFILE);
	CHECK(fd >= 0 && close(fd) == 0);
	fd = syscall(SYS_openat2, AT_FDCWD, "large", &how, sizeof how);
	CHECK(fd >= 0 && close(fd) == 0);
	fd = syscall(SYS_open, "large", O_PATH);
	CHECK(fd >= 0 && close(fd) == 0);
	CHECK(syscall(SYS_truncate64, "large", 0xffffffff, 0) == 0);
	CHECK(syscall(SYS_stat64, "large", &wide) == 0 && wide.size == 0xffffffff);
	FAILS(EINVAL, syscall(SYS_truncate64, "large", 0, 0x80000000));
	FAILS(EINVAL, syscall(SYS_truncate, "large", -1));
	CHECK(syscall(SYS_truncate, "large", 7) == 0);
	CHECK(syscall(SYS_stat64, "large", &wide) == 0 && wide.size == 7);
	fd = syscall(SYS_creat, "large", 0600);
	CHECK(fd >= 0 && syscall(SYS_ftruncate, fd, 9) == 0 && syscall(SYS_fstat64, fd, &wide) == 0 && wide.size == 9);
}

static void statfs_forms_agree(void)
{
	struct wide_fs wide, of_fd;
	struct narrow_fs narrow;
	int fd = open("/etc/passwd", O_RDONLY), result;

	CHECK(sizeof wide == 84 && sizeof narrow == 64 && fd >= 0);
	CHECK(syscall(SYS_statfs64, "/etc/passwd", sizeof wide, &wide) == 0);
	CHECK(syscall(SYS_fstatfs64, fd, sizeof of_fd, &of_fd) == 0);
	CHECK(wide.type == of_fd.type && wide.bsize == of_fd.bsize && wide.blocks == of_fd.blocks);
	CHECK(wide.bsize >= 512 && wide.namelen == 255 && wide.flags & 0x20);
	result = syscall(SYS_statfs, "/etc/passwd", &narrow);
	if (wide.blocks > 0xffffffff || (wide.files > 0xffffffff && wide.files != ~0ull)) {
		CHECK(result == -1 && errno == EOVERFLOW);
	} else {
		CHECK(result == 0 && narrow.type == wide.type && narrow.bsize == wide.bsize);
		CHECK(narrow.blocks == wide.blocks && narrow.files == (uint32_t)wide.files);
		CHECK(narrow.namelen == wide.namelen && narrow.frsize == wide.frsize && narrow.flags == wide.flags);
		CHECK(narrow.fsid[0] == wide.fsid[0] && narrow.fsid[1] == wide.fsid[1]);
		CHECK(syscall(SYS_fstatfs, fd, &narrow) == 0 && narrow.type == wide.type);
	}
	FAILS(EINVAL, syscall(SYS_statfs64, "/etc/passwd", sizeof wide + 4, &wide));
	FAILS(EINVAL, syscall(SYS_fstatfs64, fd, 0, &wide));
	FAILS(EINVAL, syscall(SYS_fstatfs64, -1, 0, &wide));
	FAILS(ENOENT, syscall(SYS_statfs64, "missing", sizeof wide, &wide));
	FAILS(EBADF, syscall(SYS_fstatfs64, -1, sizeof wide, &wide));
}

static void bad_pointers_are_efault(void)
{
	struct wide wide;

	FAILS(EFAULT, syscall(SYS_stat64, "/etc/passwd", 8));
	FAILS(EFAULT, syscall(SYS_stat64, 8, &wide));
	FAILS(EFAULT, syscall(SYS_stat64, 0xfffffff0, &wide));
	FAILS(EFAULT, syscall(SYS_lstat64, "/etc/passwd", 0xfffffff0));
	FAILS(EFAULT, syscall(SYS_statfs, "/etc/passwd", 8));
	FAILS(EFAULT, syscall(SYS_open, 0, O_RDONLY));
	FAILS(ENOENT, syscall(SYS_stat64, "missing", 8));
}

static const struct fact facts[] = {
	{ "stat_forms_agree", stat_forms_agree },
	{ "large_sizes_are_eoverflow", large_sizes_are_eoverflow },
	{ "statfs_forms_agree", statfs_forms_agree },
	{ "bad_pointers_are_efault", bad_pointers_are_efault },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return check_fact(facts, argc, argv);
}
