// Mount calls that have no wrapper: prints what they tell, or the name of the errno.
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Numbers and structures of include/uapi: older headers lack them.
enum { MOUNT_SETATTR = 442, STATMOUNT = 457, LISTMOUNT = 458, OPEN_TREE_ATTR = 467 };
enum { MASK_ID = 0x1000, MASK_UNIQUE = 0x4000, ATTRIBUTE_ROOT = 0x2000 };

struct attributes {
    uint64_t set, clear, propagation, userns;
};

struct request {
    uint32_t size, spare;
    uint64_t id, parameter, namespace;
};

static int failed(void) {
    puts(strerrorname_np(errno));
    return 0;
}

static int setattr(char **arg) {
    struct attributes attributes = {strtoull(arg[2], 0, 0), strtoull(arg[3], 0, 0), strtoull(arg[4], 0, 0), 0};
    long flags = strtol(arg[1], 0, 0), size = strtol(arg[5], 0, 0);
    if (syscall(MOUNT_SETATTR, AT_FDCWD, arg[0], flags, &attributes, size) < 0)
        return failed();
    puts("done");
    return 0;
}

static uint64_t mount_id(const char *path, unsigned mask, uint64_t *attributes) {
    union {
        struct statx known;
        unsigned char bytes[512];
    } status;
    memset(&status, 0, sizeof status);
    if (syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, mask, &status) < 0)
        return 0;
    uint64_t id;
    memcpy(&id, status.bytes + 144, sizeof id);
    *attributes = status.known.stx_attributes & status.known.stx_attributes_mask;
    return id;
}

// The number of the mount of a path, and whether the path is its root.
static int id(char **arg) {
    uint64_t attributes = 0, number = mount_id(arg[0], MASK_ID, &attributes);
    printf("%llu %s\n", (unsigned long long)number, attributes & ATTRIBUTE_ROOT ? "root" : "inside");
    return 0;
}

// What statmount tells of the mount of a path.
static int tell(char **arg) {
    uint64_t attributes;
    unsigned char buffer[4096];
    uint32_t at[3], old;
    struct request request = {sizeof request, 0, mount_id(arg[0], MASK_UNIQUE, &attributes), 2 | 0x10 | 0x20 | 0x200, 0};
    if (syscall(STATMOUNT, &request, buffer, sizeof buffer, 0) < 0)
        return failed();
    memcpy(&at[0], buffer + 36, 4);
    memcpy(&at[1], buffer + 108, 4);
    memcpy(&at[2], buffer + 124, 4);
    memcpy(&old, buffer + 56, 4);
    uint64_t flags;
    memcpy(&flags, buffer + 64, 8);
    printf("%s on %s type %s flags %llx\n", buffer + 512 + at[2], buffer + 512 + at[1], buffer + 512 + at[0],
           (unsigned long long)flags);
    return old != mount_id(arg[0], MASK_ID, &attributes);
}

// How many mounts are in the one of a path.
static int count(char **arg) {
    uint64_t attributes, ids[1024];
    struct request request = {sizeof request, 0, mount_id(arg[0], MASK_UNIQUE, &attributes), 0, 0};
    long number = syscall(LISTMOUNT, &request, ids, 1024, 0);
    if (number < 0)
        return failed();
    printf("%ld\n", number);
    return 0;
}

// What a query with a number that is none gives.
static int wrong(char **arg) {
    char buffer[600];
    struct request request = {strtoul(arg[0], 0, 0), strtoul(arg[1], 0, 0), strtoull(arg[2], 0, 0), 2, 0};
    if (syscall(STATMOUNT, &request, buffer, sizeof buffer, strtoul(arg[3], 0, 0)) < 0)
        return failed();
    puts("done");
    return 0;
}

int main(int argc, char **argv) {
    struct {
        const char *name;
        int arguments, (*run)(char **);
    } calls[] = {{"setattr", 6, setattr}, {"id", 1, id}, {"tell", 1, tell}, {"count", 1, count}, {"wrong", 4, wrong}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (argc == calls[i].arguments + 2 && !strcmp(argv[1], calls[i].name))
            return calls[i].run(argv + 2);
    fputs("usage: mount_calls setattr PATH FLAGS SET CLEAR PROPAGATION SIZE | id PATH | tell PATH | count PATH | "
          "wrong SIZE SPARE ID FLAGS\n",
          stderr);
    return 2;
}
