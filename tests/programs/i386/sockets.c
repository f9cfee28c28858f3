// flags: -pthread
// Sockets with file names, by socketcall and by the calls that came after it; threads and pipes.
#include "facts.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { BIND = 2, CONNECT = 3, LISTEN = 4, ACCEPT = 5, GETSOCKNAME = 6, GETPEERNAME = 7, SENDTO = 11, SENDMSG = 16, SENDMMSG = 20 };

#define SOCKETCALL(number, ...) syscall(SYS_socketcall, number, (long[6]){ __VA_ARGS__ })

static struct sockaddr_un named(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, path);
	return address;
}

static int make(int kind)
{
	int fd = socket(AF_UNIX, kind, 0);

	CHECK(fd >= 0);
	return fd;
}

static void streams_connect_by_socketcall(void)
{
	struct sockaddr_un address = named("socket"), told;
	socklen_t length = sizeof told;
	int server = make(SOCK_STREAM), client = make(SOCK_STREAM), peer;
	char byte;

	CHECK(SOCKETCALL(BIND, server, (long)&address, sizeof address) == 0);
	FAILS(EADDRINUSE, SOCKETCALL(BIND, client, (long)&address, sizeof address));
	CHECK(SOCKETCALL(LISTEN, server, 5) == 0);
	CHECK(SOCKETCALL(CONNECT, client, (long)&address, sizeof address) == 0);
	peer = SOCKETCALL(ACCEPT, server, 0, 0);
	CHECK(peer >= 0 && write(client, "x", 1) == 1 && read(peer, &byte, 1) == 1 && byte == 'x');
	CHECK(SOCKETCALL(GETSOCKNAME, server, (long)&told, (long)&length) == 0 && strcmp(told.sun_path, "socket") == 0);
	length = sizeof told;
	CHECK(SOCKETCALL(GETPEERNAME, client, (long)&told, (long)&length) == 0 && strcmp(told.sun_path, "socket") == 0);
	address = named("missing");
	FAILS(ENOENT, SOCKETCALL(CONNECT, make(SOCK_STREAM), (long)&address, sizeof address));
	FAILS(EFAULT, syscall(SYS_socketcall, CONNECT, 8));
	FAILS(EINVAL, syscall(SYS_socketcall, 77, 8));
	CHECK(syscall(SYS_socketcall, 1, (long[3]){ AF_UNIX, SOCK_STREAM, 0 }) >= 0);
}

static void streams_connect_by_calls_of_their_own(void)
{
	char path[200];
	struct sockaddr_un address, told;
	socklen_t length = sizeof told;
	int server = make(SOCK_STREAM), client = make(SOCK_STREAM);

	// A short absolute path, where there is one.
	CHECK(getcwd(path, sizeof path));
	strcat(path, "/s");
	address = named(strlen(path) < sizeof address.sun_path - 4 ? path : "s");
	CHECK(syscall(SYS_bind, server, &address, sizeof address) == 0 && syscall(SYS_listen, server, 5) == 0);
	CHECK(syscall(SYS_connect, client, &address, sizeof address) == 0);
	CHECK(syscall(SYS_getpeername, client, &told, &length) == 0 && strcmp(told.sun_path, address.sun_path) == 0);
	FAILS(EPROTOTYPE, syscall(SYS_connect, make(SOCK_DGRAM), &address, sizeof address));
}

static void receive(int fd, const char *wanted)
{
	char buffer[64] = "";

	CHECK(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) == (ssize_t)strlen(wanted) && strcmp(buffer, wanted) == 0);
}

static void datagrams_are_sent_to_names(void)
{
	struct sockaddr_un address = named("socket");
	int server = make(SOCK_DGRAM), client = make(SOCK_DGRAM);
	struct iovec pieces[2] = { { "one ", 4 }, { "two", 3 } };
	struct msghdr message = { .msg_name = &address, .msg_namelen = sizeof address, .msg_iov = pieces, .msg_iovlen = 2 };
	struct mmsghdr several[2] = { { message, 99 }, { message, 99 } };

	CHECK(bind(server, (struct sockaddr *)&address, sizeof address) == 0);
	CHECK(SOCKETCALL(SENDTO, client, (long)"abc", 3, 0, (long)&address, sizeof address) == 3);
	receive(server, "abc");
	CHECK(syscall(SYS_sendto, client, "defg", 4, 0, &address, sizeof address) == 4);
	receive(server, "defg");
	CHECK(SOCKETCALL(SENDMSG, client, (long)&message, 0) == 7);
	receive(server, "one two");
	CHECK(syscall(SYS_sendmsg, client, &message, 0) == 7);
	receive(server, "one two");
	CHECK(SOCKETCALL(SENDMMSG, client, (long)several, 2, 0) == 2 && several[0].msg_len == 7 && several[1].msg_len == 7);
	receive(server, "one two");
	receive(server, "one two");
	CHECK(syscall(SYS_sendmmsg, client, several, 1, 0) == 1);
	receive(server, "one two");
	CHECK(message.msg_name == &address && message.msg_iovlen == 2);
	address = named("missing");
	FAILS(ENOENT, syscall(SYS_sendto, client, "x", 1, 0, &address, sizeof address));
	FAILS(ENOENT, syscall(SYS_sendmsg, client, &message, 0));
	FAILS(EFAULT, syscall(SYS_sendmsg, client, 8, 0));
}

static void descriptors_are_passed(void)
{
	struct sockaddr_un address = named("socket");
	int server = make(SOCK_DGRAM), client = make(SOCK_DGRAM), fd = open("/etc/passwd", O_RDONLY), got = -1;
	char control[CMSG_SPACE(sizeof fd)] = { 0 }, byte;
	struct iovec piece = { "x", 1 };
	struct msghdr message = {
		.msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &piece, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control,
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	struct stat64 one, other;

	CHECK(bind(server, (struct sockaddr *)&address, sizeof address) == 0);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	CHECK(SOCKETCALL(SENDMSG, client, (long)&message, 0) == 1);
	piece.iov_base = &byte;
	memset(control, 0, sizeof control);
	message.msg_name = NULL;
	message.msg_namelen = 0;
	CHECK(recvmsg(server, &message, 0) == 1 && byte == 'x');
	header = CMSG_FIRSTHDR(&message);
	CHECK(header && header->cmsg_type == SCM_RIGHTS);
	memcpy(&got, CMSG_DATA(header), sizeof got);
	CHECK(fstat64(fd, &one) == 0 && fstat64(got, &other) == 0 && one.st_ino == other.st_ino);
}

static void ignore(int number)
{
	(void)number;
}

static void waiting_ends_with_a_signal(void)
{
	struct sigaction action = { .sa_handler = ignore };

	CHECK(mkfifo("fifo", 0600) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
	alarm(1);
	FAILS(EINTR, syscall(SYS_open, "fifo", O_RDONLY));
	FAILS(ENXIO, syscall(SYS_openat, AT_FDCWD, "fifo", O_WRONLY | O_NONBLOCK));
}

static void *write_through(void *argument)
{
	int fd = open(argument, O_WRONLY);

	return (void *)(long)(fd >= 0 && write(fd, "through", 7) == 7 && close(fd) == 0);
}

static void both_ends_of_a_fifo_meet(void)
{
	pthread_t thread;
	char buffer[8] = "";
	void *result;
	int fd;

	CHECK(mkfifo("fifo", 0600) == 0 && pthread_create(&thread, NULL, write_through, "fifo") == 0);
	fd = open("fifo", O_RDONLY);
	CHECK(fd >= 0 && read(fd, buffer, 8) == 7 && memcmp(buffer, "through", 7) == 0);
	CHECK(pthread_join(thread, &result) == 0 && result);
}

static void descriptors_of_paths_are_given(void)
{
	struct stat64 one, other;
	int fd = open("/etc/passwd", O_PATH | O_CLOEXEC), dir = open(".", O_PATH | O_DIRECTORY);

	CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && dir >= 0 && fcntl(dir, F_GETFD) == 0);
	CHECK(fstat64(fd, &one) == 0 && stat64("/etc/passwd", &other) == 0 && one.st_ino == other.st_ino);
	CHECK(mkdirat(dir, "made", 0755) == 0 && access("made", X_OK) == 0);
	FAILS(EBADF, read(fd, &one, 1));
}

static void *work(void *number)
{
	char one[32], two[32];
	struct stat64 status;

	snprintf(one, sizeof one, "one%ld", (long)number);
	snprintf(two, sizeof two, "two%ld", (long)number);
	for (int i = 0; i < 20; i++) {
		int fd = open(one, O_CREAT | O_EXCL | O_WRONLY, 0600);

		if (fd < 0 || close(fd) != 0 || rename(one, two) != 0 || stat64(two, &status) != 0 || unlink(two) != 0)
			return number;
	}
	return NULL;
}

static void threads_work_at_once(void)
{
	pthread_t threads[20];
	void *result;

	for (long i = 0; i < 20; i++)
		CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
	for (int i = 0; i < 20; i++)
		CHECK(pthread_join(threads[i], &result) == 0 && result == NULL);
}

static const struct fact facts[] = {
	{ "streams_connect_by_socketcall", streams_connect_by_socketcall },
	{ "streams_connect_by_calls_of_their_own", streams_connect_by_calls_of_their_own },
	{ "datagrams_are_sent_to_names", datagrams_are_sent_to_names },
	{ "descriptors_are_passed", descriptors_are_passed },
	{ "waiting_ends_with_a_signal", waiting_ends_with_a_signal },
	{ "both_ends_of_a_fifo_meet", both_ends_of_a_fifo_meet },
	{ "descriptors_of_paths_are_given", descriptors_of_paths_are_given },
	{ "threads_work_at_once", threads_work_at_once },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return check_fact(facts, argc, argv);
}
