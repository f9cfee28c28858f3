// name_to_handle_at may work; open_by_handle_at needs a privilege that no guest has.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

// What name_to_handle_at says of a file of the host, with room for so many bytes.
static void tell(unsigned room, int *mount)
{
	struct file_handle *handle = calloc(1, sizeof *handle + 200);

	handle->handle_bytes = room;
	if (name_to_handle_at(AT_FDCWD, "/etc/passwd", handle, mount, 0) == 0)
		printf("%s ", handle->handle_bytes > 0 && handle->handle_bytes <= room ? "made" : "wrong size");
	else if (errno == EOVERFLOW)
		printf("%s ", handle->handle_bytes > room ? "EOVERFLOW" : "wrong need");
	else
		printf("%s ", errno == EOPNOTSUPP ? "EOPNOTSUPP" : errno == EINVAL ? "EINVAL" : "another errno");
	free(handle);
}

static int tell_all(void)
{
	struct statx stat;
	int mount = -1;

	tell(MAX_HANDLE_SZ, &mount);
	if (statx(AT_FDCWD, "/etc/passwd", 0, STATX_MNT_ID, &stat) == 0 && mount != -1)
		printf("%s ", (int)stat.stx_mnt_id == mount ? "its mount" : "another mount");
	tell(0, &mount);
	tell(MAX_HANDLE_SZ + 1, &mount);
	if (name_to_handle_at(AT_FDCWD, "/etc/passwd", (struct file_handle *)1, &mount, 0) != 0)
		puts(errno == EFAULT ? "EFAULT" : errno == EOPNOTSUPP ? "EOPNOTSUPP" : "another errno");
	return 0;
}

int main(int argc, char **argv)
{
	struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
	int mount;

	(void)argv;
	if (argc > 1)
		return tell_all();
	handle->handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, ".", handle, &mount, 0) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
		perror("name_to_handle_at");
		return 1;
	}
	if (name_to_handle_at(AT_FDCWD, "missing", handle, &mount, 0) == 0 || (errno != ENOENT && errno != ENOSYS)) {
		perror("name_to_handle_at of nothing");
		return 1;
	}
	if (name_to_handle_at(AT_FDCWD, ".", handle, &mount, 0x10000) == 0 || (errno != EINVAL && errno != ENOSYS)) {
		perror("name_to_handle_at with unknown flags");
		return 1;
	}
	if (open_by_handle_at(AT_FDCWD, handle, O_RDONLY) >= 0)
		puts("opened");
	else
		puts(errno == EPERM || errno == ENOSYS ? "EPERM" : "another errno");
	return 0;
}
