// Connects to a full socket, waits there, and gets SIGALRM: with or without SA_RESTART. Called "registers", it
// connects with the bare instruction and looks at what else has changed.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t alarms;
static int listener;
static struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
static const socklen_t length = sizeof(address);

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

static void on_alarm_accept(int signal)
{
	on_alarm(signal);
	accept(listener, NULL, NULL);
}

static int stream(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int registers_stay(void)
{
	register long fd __asm__("rdi") = stream();
	register long where __asm__("rsi") = (long)&address;
	register long size __asm__("rdx") = length;
	register long r10 __asm__("r10") = 10;
	register long r8 __asm__("r8") = 8;
	register long r9 __asm__("r9") = 9;
	long given = fd;
	long result = SYS_connect;

	__asm__ volatile("syscall"
			 : "+a"(result), "+r"(fd), "+r"(where), "+r"(size), "+r"(r10), "+r"(r8), "+r"(r9)
			 :
			 : "rcx", "r11", "memory");
	return result == 0 && fd == given && where == (long)&address && size == length && r10 == 10 &&
	       r8 == 8 && r9 == 9;
}

int main(int argc, char **argv)
{
	int restart = argc > 1 && strcmp(argv[1], "restart") == 0;
	struct sigaction action = {
		.sa_handler = restart ? on_alarm_accept : on_alarm,
		.sa_flags = restart ? SA_RESTART : 0,
	};
	struct itimerval soon = { .it_value = { .tv_usec = 100000 } };

	listener = stream();
	if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 0) != 0)
		return 1;
	if (argc > 1 && strcmp(argv[1], "registers") == 0) {
		puts(registers_stay() ? "unchanged" : "changed");
		return 0;
	}
	if (connect(stream(), (struct sockaddr *)&address, length) != 0)
		return 1;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	if (connect(stream(), (struct sockaddr *)&address, length) == 0)
		puts(alarms == 1 ? "connected after the signal" : "connected without the signal");
	else
		puts(errno == EINTR && alarms == 1 ? "EINTR" : strerror(errno));
	return 0;
}
