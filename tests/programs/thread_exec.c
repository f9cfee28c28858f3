// flags: -pthread
// A second thread executes a program: the process keeps its pid and has one thread again.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <unistd.h>

static void *execute(void *self)
{
	char pid[16];

	snprintf(pid, sizeof pid, "%d", getpid());
	execl(self, self, pid, NULL);
	exit(1);
}

static void *stay(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc > 1) {
		DIR *tasks = opendir("/proc/self/task");
		int count = 0;

		while (readdir(tasks))
			count++;
		puts(count == 3 && atoi(argv[1]) == getpid() ? "one thread, same pid" : "wrong");
		return 0;
	}
	for (int i = 0; i < 10; i++)
		pthread_create(&thread, NULL, stay, NULL);
	pthread_create(&thread, NULL, execute, argv[0]);
	pthread_join(thread, NULL);
	return 1;
}
