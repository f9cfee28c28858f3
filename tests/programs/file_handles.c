// name_to_handle_at may work; open_by_handle_at needs a privilege that no guest has.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
	struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
	int mount;

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
