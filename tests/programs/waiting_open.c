// Opens ./fifo, waits in the open, and gets SIGALRM there: with or without SA_RESTART.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

/* The other end: comes only after the alarm has been seen. */
static pid_t start_writer(int when)
{
	pid_t pid = fork();
	char byte;

	if (pid == 0) {
		if (read(when, &byte, 1) != 1)
			_exit(1);
		close(open("fifo", O_WRONLY));
		_exit(0);
	}
	return pid;
}

static int to_writer;

static void on_alarm_release_writer(int signal)
{
	on_alarm(signal);
	if (write(to_writer, "x", 1) != 1)
		_exit(1);
}

int main(int argc, char **argv)
{
	int restart = argc > 1 && strcmp(argv[1], "restart") == 0;
	struct sigaction action = {
		.sa_handler = restart ? on_alarm_release_writer : on_alarm,
		.sa_flags = restart ? SA_RESTART : 0,
	};
	struct itimerval soon = { .it_value = { .tv_usec = 100000 } };
	int pipes[2];
	int fd;

	if (pipe(pipes) != 0)
		return 1;
	to_writer = pipes[1];
	if (restart)
		start_writer(pipes[0]);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	fd = open("fifo", O_RDONLY);
	if (fd >= 0)
		puts(alarms == 1 ? "opened after the signal" : "opened without the signal");
	else
		puts(errno == EINTR && alarms == 1 ? "EINTR" : strerror(errno));
	while (wait(NULL) > 0)
		;
	return 0;
}
