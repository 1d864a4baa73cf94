#include "net/http/port.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INODES_MAX = 64, COMMAND_WIDTH = 60 };

/* --- whose port ---------------------------------------------------------------------------------- */

struct inodes {
    unsigned long of[INODES_MAX];
    size_t n;
};

static bool is_any(const struct in6_addr *a)
{
    return IN6_IS_ADDR_UNSPECIFIED(a) ||
           (IN6_IS_ADDR_V4MAPPED(a) && memcmp(&a->s6_addr[12], "\0\0\0\0", 4) == 0);
}

static void map_v4(struct in6_addr *a, const void *v4)
{
    memset(a, 0, 10);
    memset(&a->s6_addr[10], 0xff, 2);
    memcpy(&a->s6_addr[12], v4, 4);
}

static int host_address(const char *host, struct in6_addr *ret)
{
    struct in_addr v4;

    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET6, host, ret) == 1)
        return 0;
    if (inet_pton(AF_INET, host, &v4) != 1)
        return -1;
    map_v4(ret, &v4);
    return 0;
}

/* The kernel prints addresses as 32-bit words in the byte order of the machine, `n` digits in all. */
static int hex_address(const char *hex, size_t n, struct in6_addr *ret)
{
    uint32_t words[4] = {0};
    char word[9] = "";

    if (n != 8 && n != 32)
        return -1;
    for (size_t i = 0; i < n / 8; i++) {
        memcpy(word, hex + i * 8, 8);
        words[i] = (uint32_t)strtoul(word, NULL, 16);
    }
    if (n == 8)
        map_v4(ret, words);
    else
        memcpy(ret, words, sizeof(words));
    return 0;
}

/* The field at place `nr` (from 0) of a line. */
static const char *field(const char *line, int nr)
{
    line += strspn(line, " ");
    for (; nr > 0; nr--) {
        line += strcspn(line, " ");
        line += strspn(line, " ");
    }
    return line;
}

/* Adds the inodes of the sockets that listen on (host, port) and are named in this file of /proc/net. */
static void find_inodes(const char *path, const struct in6_addr *host, unsigned port,
                        struct inodes *found)
{
    enum { LOCAL = 1, STATE = 3, INODE = 9, LISTENING = 0x0a };
    FILE *f = fopen(path, "re");
    struct in6_addr local;
    char line[512];

    if (!f)
        return;
    while (found->n < INODES_MAX && fgets(line, sizeof(line), f)) {
        const char *address = field(line, LOCAL);
        size_t n = strcspn(address, ":");

        if (address[n] != ':' || strtoul(address + n + 1, NULL, 16) != port ||
            strtoul(field(line, STATE), NULL, 16) != LISTENING ||
            hex_address(address, n, &local) < 0)
            continue;
        if (is_any(host) || is_any(&local) || memcmp(host, &local, sizeof(local)) == 0)
            found->of[found->n++] = strtoul(field(line, INODE), NULL, 10);
    }
    fclose(f);
}

static bool has_socket(long pid, const struct inodes *inodes)
{
    static const char prefix[] = "socket:[";
    char path[64], target[64];
    const struct dirent *e;
    bool found = false;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    dir = opendir(path);
    if (!dir)
        return false;
    while (!found && (e = readdir(dir))) {
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
        unsigned long inode;

        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strncmp(target, prefix, sizeof(prefix) - 1) != 0)
            continue;
        inode = strtoul(target + sizeof(prefix) - 1, NULL, 10);
        for (size_t i = 0; i < inodes->n; i++)
            found = found || inodes->of[i] == inode;
    }
    closedir(dir);
    return found;
}

static char *describe(long pid)
{
    struct rs_buf out = {0};
    char path[64], args[1024], *line;
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, args, sizeof(args) - 1);
        close(fd);
    }
    rs_buf_printf(&out, "pid %ld", pid);
    if (n <= 0)
        return rs_buf_steal(&out);
    args[n] = '\0';
    line = memrchr(args, '/', strlen(args)); /* of the program's path the name will do */
    line = line ? line + 1 : args;
    for (char *p = line; p < args + n - 1; p++)
        if (*p == '\0')
            *p = ' ';
    rs_buf_puts(&out, " (");
    rs_text_fit(&out, line, COMMAND_WIDTH);
    rs_buf_puts(&out, ")");
    return rs_buf_steal(&out);
}

char *rs_port_holder(const char *host, uint16_t port)
{
    struct inodes inodes = {0};
    struct in6_addr address;
    struct dirent *e;
    long first = 0;
    DIR *dir;

    if (host_address(host, &address) < 0)
        return NULL;
    find_inodes("/proc/net/tcp", &address, port, &inodes);
    find_inodes("/proc/net/tcp6", &address, port, &inodes);
    dir = inodes.n ? opendir("/proc") : NULL;
    if (!dir)
        return NULL;
    /* several may have it open: parent and children; the parent is the oldest */
    while ((e = readdir(dir))) {
        long pid = isdigit((unsigned char)e->d_name[0]) ? strtol(e->d_name, NULL, 10) : 0;

        if (pid > 0 && (first == 0 || pid < first) && has_socket(pid, &inodes))
            first = pid;
    }
    closedir(dir);
    return first > 0 ? describe(first) : NULL;
}

int rs_port_error(struct rs_error *err, int sys_errno, const char *host, uint16_t port,
                  const char *option)
{
    rs_auto(rs_freep) char *holder = NULL;
    char way[64] = "stop it";

    if (sys_errno != EADDRINUSE)
        return rs_error_errno(err, sys_errno, "cannot listen on %s port %u", host, port);
    if (option)
        snprintf(way, sizeof(way), "stop it or use %s", option);
    holder = rs_port_holder(host, port);
    rs_error_set(err, RS_CONFLICT, "port %u is in use by %s: %s", port,
                 holder ? holder : "another process", way);
    if (err)
        err->sys_errno = sys_errno;
    return -1;
}

/* --- listening ------------------------------------------------------------------------------------ */

static int parse(const char *host, uint16_t port, struct rs_address *ret, struct rs_error *err)
{
    char text[80];

    snprintf(text, sizeof(text), strchr(host, ':') && host[0] != '[' ? "[%s]:%u" : "%s:%u", host,
             port);
    return rs_address_parse(text, -1, ret, err);
}

int rs_port_listen(const char *host, uint16_t port, const char *option, int *ret,
                   struct rs_address *bound, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = -1;
    struct rs_address at;

    if (parse(host, port, &at, err) < 0)
        return -1;
    fd = socket(at.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot make a socket for %s", host);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (const struct sockaddr *)&at.sa, at.len) < 0 || listen(fd, 128) < 0)
        return rs_port_error(err, errno, host, port, option);
    at.len = sizeof(at.sa);
    if (getsockname(fd, (struct sockaddr *)&at.sa, &at.len) < 0)
        return rs_error_errno(err, errno, "cannot learn the port of %s", host);
    if (bound)
        *bound = at;
    *ret = rs_steal_fd(&fd);
    return 0;
}

int rs_port_check(const char *host, uint16_t port, const char *option, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = -1;

    return port == 0 ? 0 : rs_port_listen(host, port, option, &fd, NULL, err);
}

bool rs_address_is_loopback(const struct sockaddr *sa)
{
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;

    if (sa->sa_family == AF_INET) {
        memcpy(&v4, sa, sizeof(v4));
        return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    }
    if (sa->sa_family != AF_INET6)
        return false;
    memcpy(&v6, sa, sizeof(v6));
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
}
