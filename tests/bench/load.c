/* What wrk cannot do, for bench.py. Each prints one line of JSON.
 *
 *     load open PORT PATH RATE CONNECTIONS SECONDS   requests at a constant rate, whatever is answered
 *     load post PORT PATH BYTES ROUNDS               one connection, bodies in and out, one by one
 *     load echo unix|tcp BYTES ROUNDS                the same over a socket to a process that does
 *                                                    nothing else: what copying alone costs
 *     load hold PORT PATH CONNECTIONS                a request on each, then they stay open until stdin ends
 *
 * open: requests are due at fixed times. One that finds no free connection waits, and its latency
 * counts from when it was due, so a server that stalls is charged for all that it held up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int connect_to(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

/* --- latencies: 128 buckets to each power of two, so within 1 % ---------------------------------- */

enum { SUB = 128, BUCKETS = 64 * SUB };

struct histogram {
    uint64_t count[BUCKETS], total;
};

static size_t bucket_of(uint64_t ns)
{
    int shift = ns < SUB ? 0 : 63 - __builtin_clzll(ns) - 7;

    return (size_t)shift * SUB + (size_t)(ns >> shift);
}

static uint64_t value_of(size_t bucket)
{
    size_t shift = bucket < 2 * SUB ? 0 : bucket / SUB - 1;

    return (uint64_t)(bucket - shift * SUB) << shift;
}

static void record(struct histogram *h, int64_t ns)
{
    h->count[bucket_of(ns < 0 ? 0 : (uint64_t)ns)]++;
    h->total++;
}

static double percentile_ms(const struct histogram *h, double p)
{
    uint64_t want = (uint64_t)((double)h->total * p / 100), seen = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        seen += h->count[i];
        if (seen > want)
            return (double)value_of(i) / 1e6;
    }
    return 0;
}

/* --- answers ------------------------------------------------------------------------------------- */

struct answer {
    char head[4096];
    size_t have;
    bool in_body;
    uint64_t left; /* of the body */
    int status;
};

/* Takes what was read. 1: the answer is complete, -1: it is not one of HTTP/1 with a length. */
static int feed(struct answer *a, const char *data, size_t n)
{
    if (!a->in_body) {
        size_t room = sizeof(a->head) - 1 - a->have, take = n < room ? n : room;
        const char *end, *length;

        memcpy(a->head + a->have, data, take);
        a->have += take;
        a->head[a->have] = '\0';
        end = strstr(a->head, "\r\n\r\n");
        if (!end)
            return take < n ? -1 : 0;
        length = strcasestr(a->head, "\r\ncontent-length:");
        if (sscanf(a->head, "HTTP/1.%*d %d", &a->status) != 1 || !length || length > end)
            return -1;
        a->left = strtoull(length + 17, NULL, 10);
        a->in_body = true;
        n -= take - (a->have - (size_t)(end + 4 - a->head));
    }
    if (n > a->left)
        return -1;
    a->left -= n;
    return a->left == 0;
}

/* --- open ---------------------------------------------------------------------------------------- */

struct conn {
    int fd;
    bool busy;
    int64_t due;
    struct answer answer;
};

struct run {
    int port, epoll;
    char request[1024];
    size_t request_len, n, free_len;
    struct conn *conns;
    struct conn **free;
    struct histogram h;
    uint64_t errors;
};

static void open_conn(struct run *r, struct conn *c)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

    *c = (struct conn){.fd = connect_to(r->port)};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        die("epoll_ctl");
    r->free[r->free_len++] = c;
}

static void fail_conn(struct run *r, struct conn *c)
{
    r->errors++;
    close(c->fd);
    open_conn(r, c);
}

static void start(struct run *r, int64_t due)
{
    struct conn *c = r->free[--r->free_len];

    c->busy = true;
    c->due = due;
    c->answer.have = 0;
    c->answer.in_body = false;
    if (send(c->fd, r->request, r->request_len, MSG_NOSIGNAL) != (ssize_t)r->request_len)
        fail_conn(r, c);
}

static void receive(struct run *r, struct conn *c)
{
    char buffer[16384];
    ssize_t n = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    int done;

    if (n < 0 && errno == EAGAIN)
        return;
    done = n > 0 && c->busy ? feed(&c->answer, buffer, (size_t)n) : -1;
    if (done < 0) {
        fail_conn(r, c);
    } else if (done) {
        record(&r->h, now_ns() - c->due);
        r->errors += c->answer.status != 200;
        c->busy = false;
        r->free[r->free_len++] = c;
    }
}

static int open_loop(char **argv)
{
    struct run r = {.port = atoi(argv[0]), .epoll = epoll_create1(EPOLL_CLOEXEC)};
    double rate = atof(argv[2]), seconds = atof(argv[4]);
    uint64_t wanted = (uint64_t)(rate * seconds), sent = 0;
    int64_t began, ended;
    struct epoll_event events[256];

    r.n = (size_t)atoi(argv[3]);
    r.conns = calloc(r.n, sizeof(*r.conns));
    r.free = calloc(r.n, sizeof(struct conn *));
    r.request_len = (size_t)snprintf(r.request, sizeof(r.request),
                                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", argv[1]);
    for (size_t i = 0; i < r.n; i++)
        open_conn(&r, &r.conns[i]);
    prctl(PR_SET_TIMERSLACK, 1UL);
    began = now_ns();
    ended = began + (int64_t)((seconds + 10) * 1e9); /* ten more seconds for the stragglers */
    while ((sent < wanted || r.free_len < r.n) && now_ns() < ended) {
        int64_t due = began + (int64_t)((double)sent / rate * 1e9), now = now_ns();
        struct timespec wait = {1, 0}; /* for answers, if no request can be sent before one */
        int n;

        while (sent < wanted && r.free_len && due <= now) {
            start(&r, due);
            due = began + (int64_t)((double)++sent / rate * 1e9);
        }
        if (sent < wanted && r.free_len && due - now < 1000000000)
            wait = (struct timespec){0, due > now ? due - now : 0};
        n = (int)syscall(SYS_epoll_pwait2, r.epoll, events, 256, &wait, NULL, 0);
        for (int i = 0; i < n; i++)
            receive(&r, events[i].data.ptr);
    }
    printf("{\"wanted\": %llu, \"done\": %llu, \"errors\": %llu, \"rate\": %.1f, \"p50_ms\": %.4f, "
           "\"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f}\n",
           (unsigned long long)wanted, (unsigned long long)r.h.total,
           (unsigned long long)(r.errors + wanted - r.h.total),
           (double)r.h.total / ((double)(now_ns() - began) / 1e9), percentile_ms(&r.h, 50),
           percentile_ms(&r.h, 99), percentile_ms(&r.h, 99.9), percentile_ms(&r.h, 100 - 1e-9));
    return 0;
}

/* --- large bodies -------------------------------------------------------------------------------- */

static void send_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n <= 0)
            die("send");
        data += n;
        len -= (size_t)n;
    }
}

static size_t recv_some(int fd, char *to, size_t room)
{
    ssize_t n = recv(fd, to, room, 0);

    if (n <= 0)
        die("recv");
    return (size_t)n;
}

static void recv_all(int fd, char *to, size_t len)
{
    while (len) {
        size_t n = recv_some(fd, to, len);

        to += n;
        len -= n;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int report(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof(*ms), by_value);
    printf("{\"p50_ms\": %.4f, \"min_ms\": %.4f, \"max_ms\": %.4f}\n", ms[n / 2], ms[0], ms[n - 1]);
    free(ms);
    return 0;
}

static char *filled(size_t size)
{
    char *data = malloc(size);

    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7);
    return data;
}

static int post(char **argv)
{
    size_t size = strtoull(argv[2], NULL, 10);
    int rounds = atoi(argv[3]), fd = connect_to(atoi(argv[0]));
    char *body = filled(size), *back = malloc(size + 65536), head[512];
    double *ms = calloc((size_t)rounds, sizeof(*ms));
    int head_len = snprintf(head, sizeof(head),
                            "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                            "application/octet-stream\r\nContent-Length: %zu\r\n\r\n",
                            argv[1], size);

    for (int i = -2; i < rounds; i++) { /* two to warm up */
        struct answer a = {0};
        int64_t began = now_ns();
        size_t got = 0, body_at = 0;
        int done = 0;

        send_all(fd, head, (size_t)head_len);
        send_all(fd, body, size);
        while (!done) {
            size_t n = recv_some(fd, back + got, size + 65536 - got);

            done = feed(&a, back + got, n);
            got += n;
        }
        if (i >= 0)
            ms[i] = (double)(now_ns() - began) / 1e6;
        body_at = got - size;
        if (done < 0 || a.status != 200 || got < size || memcmp(back + body_at, body, size) != 0) {
            fprintf(stderr, "load: the body did not come back: %.60s\n", a.head);
            return 1;
        }
    }
    return report(ms, rounds);
}

/* Two ends of a connection. */
static void connected(const char *how, int pair[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof(at);
    int listener;

    if (strcmp(how, "tcp") != 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
            die("socketpair");
        return;
    }
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&at, &len) < 0)
        die("listen");
    pair[0] = connect_to(ntohs(at.sin_port));
    pair[1] = accept(listener, NULL, NULL);
    if (pair[1] < 0)
        die("accept");
    close(listener);
}

static int echo(char **argv)
{
    size_t size = strtoull(argv[1], NULL, 10);
    int rounds = atoi(argv[2]), pair[2];
    char *body = filled(size), *back = malloc(size);
    double *ms = calloc((size_t)rounds, sizeof(*ms));
    pid_t child;

    connected(argv[0], pair);
    child = fork();
    if (child == 0) {
        close(pair[0]);
        for (int i = -2; i < rounds; i++) {
            recv_all(pair[1], back, size);
            send_all(pair[1], back, size);
        }
        _exit(0);
    }
    close(pair[1]);
    for (int i = -2; i < rounds; i++) {
        int64_t began = now_ns();

        send_all(pair[0], body, size);
        recv_all(pair[0], back, size);
        if (i >= 0)
            ms[i] = (double)(now_ns() - began) / 1e6;
        if (memcmp(body, back, size) != 0)
            die("echo");
    }
    waitpid(child, NULL, 0);
    return report(ms, rounds);
}

/* --- hold ---------------------------------------------------------------------------------------- */

static int hold(char **argv)
{
    int port = atoi(argv[0]), n = atoi(argv[2]);
    char request[1024], buffer[4096];
    int len =
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", argv[1]);

    for (int i = 0; i < n; i++) {
        struct answer a = {0};
        int fd = connect_to(port), done = 0;

        send_all(fd, request, (size_t)len);
        while (!done)
            done = feed(&a, buffer, recv_some(fd, buffer, sizeof(buffer)));
        if (done < 0 || a.status != 200)
            die("an answer");
    }
    printf("{\"open\": %d}\n", n);
    fflush(stdout);
    while (read(0, buffer, sizeof(buffer)) > 0)
        ;
    return 0;
}

static const struct {
    const char *name;
    int args;
    int (*run)(char **argv);
} modes[] = {{"open", 5, open_loop}, {"post", 4, post}, {"echo", 3, echo}, {"hold", 3, hold}};

int main(int argc, char **argv)
{
    struct rlimit files;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        if (argc > 1 && strcmp(argv[1], modes[i].name) == 0 && argc == modes[i].args + 2)
            return modes[i].run(argv + 2);
    }
    fprintf(stderr, "load: see the top of load.c for its arguments\n");
    return 2;
}
