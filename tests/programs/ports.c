// A server and its clients, over both families, that know a port by its number in the view: ports GUEST, where GUEST is
// below what an ordinary user may bind. Prints what is not as it should be, and "so it is" at the end.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int wrong;

static void must(int holds, const char *what) {
    if (!holds) {
        printf("%s: %s\n", what, strerror(errno));
        wrong = 1;
    }
}

static socklen_t address(struct sockaddr_storage *to, int family, const char *text, int port) {
    memset(to, 0, sizeof *to);
    to->ss_family = family;
    ((struct sockaddr_in *)to)->sin_port = htons(port);
    if (family == AF_INET) {
        inet_pton(family, text, &((struct sockaddr_in *)to)->sin_addr);
        return sizeof(struct sockaddr_in);
    }
    inet_pton(family, text, &((struct sockaddr_in6 *)to)->sin6_addr);
    return sizeof(struct sockaddr_in6);
}

typedef int ask(int, struct sockaddr *, socklen_t *);

static int port_by(ask *ask, int fd, socklen_t length) {
    struct sockaddr_storage told;
    socklen_t room = sizeof told;
    if (ask(fd, (struct sockaddr *)&told, &room) != 0 || room != length)
        return -1;
    // With little room it is cut, and its whole length told.
    struct sockaddr_storage cut;
    memset(&cut, 7, sizeof cut);
    room = 4;
    if (ask(fd, (struct sockaddr *)&cut, &room) != 0 || room != length || memcmp(&cut, &told, 4) != 0 ||
        ((char *)&cut)[4] != 7)
        return -1;
    return ntohs(((struct sockaddr_in *)&told)->sin_port);
}

static void streams(int family, const char *text, int port) {
    struct sockaddr_storage to;
    socklen_t length = address(&to, family, text, port);
    int server = socket(family, SOCK_STREAM, 0), yes = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    must(bind(server, (struct sockaddr *)&to, length) == 0, "bind");
    must(listen(server, 4) == 0, "listen");
    must(port_by(getsockname, server, length) == port, "the server's own port");
    int other = socket(family, SOCK_STREAM, 0);
    must(bind(other, (struct sockaddr *)&to, length) == -1 && errno == EADDRINUSE, "a port in use");
    must(bind(other, (struct sockaddr *)&to, 4) == -1 && errno == EINVAL, "a short address");
    must(bind(-1, (struct sockaddr *)&to, length) == -1 && errno == EBADF, "no socket");
    must(bind(STDIN_FILENO, (struct sockaddr *)&to, length) == -1 && errno == ENOTSOCK, "a file");
    int client = socket(family, SOCK_STREAM, 0);
    must(connect(client, (struct sockaddr *)&to, length) == 0, "connect");
    must(port_by(getpeername, client, length) == port, "the client's peer");
    int accepted = accept(server, NULL, NULL);
    must(port_by(getsockname, accepted, length) == port, "the port that was accepted at");
    char got = 0;
    must(write(client, "x", 1) == 1 && read(accepted, &got, 1) == 1 && got == 'x', "a byte");
    int later = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int done = connect(later, (struct sockaddr *)&to, length);
    must(done == 0 || errno == EINPROGRESS, "connect without waiting");
    close(server), close(other), close(client), close(accepted), close(later);
}

static int receives(int fd, const char *text) {
    char got[16];
    ssize_t count = recv(fd, got, sizeof got, 0);
    return count == (ssize_t)strlen(text) && memcmp(got, text, count) == 0;
}

static void datagrams(int family, const char *text, int port) {
    struct sockaddr_storage to;
    socklen_t length = address(&to, family, text, port);
    int server = socket(family, SOCK_DGRAM, 0), client = socket(family, SOCK_DGRAM, 0);
    must(bind(server, (struct sockaddr *)&to, length) == 0, "bind for datagrams");
    must(sendto(client, "one", 3, 0, (struct sockaddr *)&to, length) == 3 && receives(server, "one"), "sendto");
    struct iovec part[2] = {{"t", 1}, {"wo", 2}};
    struct msghdr message = {.msg_name = &to, .msg_namelen = length, .msg_iov = part, .msg_iovlen = 2};
    must(sendmsg(client, &message, 0) == 3 && receives(server, "two"), "sendmsg");
    // The second goes to another port, which is what it is.
    struct sockaddr_storage own;
    socklen_t room = sizeof own;
    address(&own, family, text, 0);
    int plain = socket(family, SOCK_DGRAM, 0);
    must(bind(plain, (struct sockaddr *)&own, length) == 0, "any port");
    getsockname(plain, (struct sockaddr *)&own, &room);
    struct mmsghdr several[2] = {{.msg_hdr = message}, {.msg_hdr = message}};
    several[1].msg_hdr.msg_name = &own;
    several[1].msg_hdr.msg_iovlen = 1;
    must(sendmmsg(client, several, 2, 0) == 2 && several[0].msg_len == 3 && several[1].msg_len == 1, "sendmmsg");
    must(receives(server, "two") && receives(plain, "t"), "what sendmmsg sent");
    must(connect(client, (struct sockaddr *)&to, length) == 0 && send(client, "three", 5, 0) == 5, "send");
    must(receives(server, "three"), "what was sent");
    close(server), close(client), close(plain);
}

static int is_there(int family, const char *text) {
    struct sockaddr_storage any;
    socklen_t length = address(&any, family, text, 0);
    int fd = socket(family, SOCK_DGRAM, 0), is = bind(fd, (struct sockaddr *)&any, length) == 0;
    close(fd);
    return is;
}

int main(int argc, char **argv) {
    int port = argc == 2 ? atoi(argv[1]) : 0;
    streams(AF_INET, "127.0.0.1", port);
    streams(AF_INET, "0.0.0.0", port);
    datagrams(AF_INET, "127.0.0.1", port);
    // Where the host has it.
    if (is_there(AF_INET6, "::1")) {
        streams(AF_INET6, "::1", port);
        datagrams(AF_INET6, "::1", port);
    }
    if (!wrong)
        puts("so it is");
    return wrong;
}
