#include "net/http/probe.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/http/answer.h"
#include "net/http/endpoint.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define TRY_TIME (2 * RS_SEC)
#define PAUSE_FIRST (20 * RS_MS)
#define PAUSE_MOST (250 * RS_MS)

struct rs_probe {
    struct rs_loop *loop;
    struct rs_endpoint at;
    struct rs_io io;
    struct rs_timer timer; /* end of this try, or of the pause */
    struct rs_buf request;
    size_t sent;
    struct rs_http_answer_in in;
    bool connecting, connect_only, once;
    int64_t deadline, pause;
    struct rs_error why; /* of the last try */
    void (*fn)(bool ok, const char *why, void *arg);
    void *arg;
};

static void disconnect(struct rs_probe *p)
{
    rs_io_stop(&p->io);
    rs_closep(&p->io.fd);
}

static int finish(struct rs_probe *p, bool ok)
{
    disconnect(p);
    rs_timer_stop(&p->timer);
    p->fn(ok, ok ? "" : p->why.msg, p->arg);
    return 0;
}

/* This try failed, for the reason in p->why. */
static int failed(struct rs_probe *p)
{
    int64_t now = rs_clock_now();

    disconnect(p);
    if (p->once || now + p->pause >= p->deadline)
        return finish(p, false);
    rs_timer_start(&p->timer, p->loop, now + p->pause);
    p->pause = p->pause * 2 < PAUSE_MOST ? p->pause * 2 : PAUSE_MOST;
    return 0;
}

/* Sends what is left of the request. */
static int push(struct rs_probe *p)
{
    while (p->sent < rs_buf_len(&p->request)) {
        ssize_t n = send(p->io.fd, rs_buf_head(&p->request) + p->sent,
                         rs_buf_len(&p->request) - p->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            p->sent += (size_t)n;
        } else if (errno == EAGAIN) {
            rs_io_watch(&p->io, EPOLLIN | EPOLLOUT);
            return 0;
        } else if (errno != EINTR) {
            rs_error_errno(&p->why, errno, "sending to the HTTP server at %s failed", p->at.name);
            return failed(p);
        }
    }
    rs_io_watch(&p->io, EPOLLIN);
    return 0;
}

static int pull(struct rs_probe *p)
{
    char data[4096];
    ssize_t n = recv(p->io.fd, data, sizeof(data), MSG_DONTWAIT);
    size_t used;
    int r = 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n > 0)
        r = rs_answer_feed(&p->in, data, (size_t)n, &used, &p->why);
    else if (n < 0)
        r = rs_error_errno(&p->why, errno, "reading its answer");
    else
        r = rs_answer_eof(&p->in, &p->why);
    if (p->in.status >= 200 && p->in.status < 400)
        return finish(p, true);
    if (p->in.status)
        r = rs_error_set(&p->why, RS_INVALID, "it answered %u", p->in.status);
    if (r == 0)
        return 0;
    rs_error_wrap(&p->why, "the HTTP server at %s is not ready", p->at.name);
    return failed(p);
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_probe *p = rs_container_of(io, struct rs_probe, io);

    if (p->connecting) {
        p->connecting = false;
        if (rs_endpoint_connected(&p->at, io->fd, &p->why) < 0)
            return failed(p);
        if (p->connect_only)
            return finish(p, true);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        return pull(p);
    return push(p);
}

static int try_once(struct rs_probe *p)
{
    int64_t end = rs_clock_now() + TRY_TIME;
    int r;

    p->sent = 0;
    rs_answer_begin(&p->in, false);
    r = rs_endpoint_connect(&p->at, &p->io.fd, &p->why);
    if (r < 0)
        return failed(p);
    p->connecting = true; /* also if it is: the next event tells */
    if (rs_io_start(&p->io, p->loop, EPOLLOUT, &p->why) < 0)
        return failed(p);
    rs_timer_start(&p->timer, p->loop, p->once || end > p->deadline ? p->deadline : end);
    return 0;
}

static int on_timer(struct rs_timer *t)
{
    struct rs_probe *p = rs_container_of(t, struct rs_probe, timer);

    if (p->io.fd < 0)
        return try_once(p);
    rs_error_set(&p->why, RS_TIMEOUT, "the HTTP server at %s did not answer in time", p->at.name);
    return failed(p);
}

int rs_probe_start(struct rs_probe **ret, struct rs_loop *loop, const struct rs_probe_conf *conf,
                   void (*fn)(bool ok, const char *why, void *arg), void *arg, struct rs_error *err)
{
    rs_auto(rs_probe_freep) struct rs_probe *p = rs_alloc(sizeof(*p));

    p->io = (struct rs_io){.fd = -1, .fn = on_io};
    p->timer.fn = on_timer;
    p->loop = loop;
    p->deadline = conf->deadline;
    p->once = conf->once;
    p->connect_only = !conf->path;
    p->pause = PAUSE_FIRST;
    p->fn = fn;
    p->arg = arg;
    if (rs_endpoint_set(&p->at, conf->host, conf->port, conf->unix_path, err) < 0)
        return -1;
    if (conf->path && (*conf->path != '/' || strpbrk(conf->path, " \t\r\n")))
        return rs_error_set(err, RS_INVALID,
                            "a readiness path begins with / and has no blanks: '%s'", conf->path);
    rs_buf_printf(&p->request,
                  "GET %s HTTP/1.1\r\nhost: %s\r\nuser-agent: rserve\r\naccept: */*\r\n"
                  "connection: close\r\n\r\n",
                  conf->path ? conf->path : "/", p->at.name);
    rs_timer_start(&p->timer, loop, 0); /* the first try is the loop's, too */
    *ret = rs_steal(p);
    return 0;
}

void rs_probe_free(struct rs_probe *p)
{
    if (!p)
        return;
    disconnect(p);
    rs_timer_stop(&p->timer);
    rs_buf_fini(&p->request);
    rs_answer_fini(&p->in);
    free(p);
}
