#include "cmd/control.h"

#include "cmd/control_plane.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/config/kept.h"
#include "net/http/port.h"
#include "sched/restart.h"
#include "sched/supervise/spawn.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { END_MS = 3000 };

struct rs_control {
    struct rs_loop *loop;
    struct rs_control_ops ops;
    void *arg;
    struct rs_child child;
    struct rs_timer again;
    struct rs_restarts restarts;
    json_t *conf;    /* of the next one: see control_plane.h */
    int rest, joins; /* listening sockets */
    struct rs_address rest_at;
    int64_t ready_at; /* this one took the node in; 0: not yet */
    bool was_ready;   /* one did */
    bool stopping;
};

/* The configuration as a file of the child's. */
static int conf_file(const struct rs_control *c, int *ret, struct rs_error *err)
{
    rs_auto(rs_freep) char *text = rs_json_dump(c->conf);
    rs_auto(rs_closep) int fd = memfd_create("rserve-control", MFD_CLOEXEC);

    if (fd < 0 || rs_file_write(fd, text, strlen(text), 0) < 0)
        return rs_error_errno(err, errno, "cannot hand the configuration to the control plane");
    *ret = rs_steal_fd(&fd);
    return 0;
}

static int start(struct rs_control *c, struct rs_error *err)
{
    static const char *const argv[] = {"rserve", "control-plane", NULL};
    rs_auto(rs_closep) int here = -1;
    rs_auto(rs_closep) int there = -1;
    rs_auto(rs_closep) int conf = -1;
    int fds[2];

    if (conf_file(c, &conf, err) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    here = fds[0];
    there = fds[1];
    const struct rs_spawn_fd given[] = {
        {STDOUT_FILENO, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}, {conf, RS_CONTROL_CONF},
        {there, RS_CONTROL_LINK},       {c->rest, RS_CONTROL_REST},     {c->joins, RS_CONTROL_JOIN},
    };
    const struct rs_spawn spec = {
        .argv = argv, .program = "/proc/self/exe", .fds = given, .n_fds = RS_COUNT(given)};

    c->ready_at = 0;
    if (rs_spawn(&c->child, c->loop, &spec, err) < 0)
        return rs_error_wrap(err, "the control plane does not start");
    c->ops.on_started(rs_steal_fd(&here), c->arg);
    return 0;
}

static void start_later(struct rs_control *c, int64_t at)
{
    rs_timer_start(&c->again, c->loop, at);
}

static int on_again(struct rs_timer *t)
{
    struct rs_control *c = rs_container_of(t, struct rs_control, again);
    struct rs_error err = {0};

    if (c->child.pid > 0 || c->stopping || start(c, &err) == 0)
        return 0;
    rs_log_error("what runs is served, but not managed", "error=\"%s\"", err.msg);
    start_later(c, rs_restarts_failed(&c->restarts, rs_clock_now()));
    return 0;
}

static void on_exit_of_child(struct rs_child *child, int status)
{
    struct rs_control *c = rs_container_of(child, struct rs_control, child);
    int64_t now = rs_clock_now(), at;
    char how[64];

    if (c->stopping)
        return;
    rs_exit_text(status, how, sizeof(how));
    if (!c->was_ready && WIFEXITED(status) && WEXITSTATUS(status) != 0) {
        c->stopping = true;
        c->ops.on_failed(WEXITSTATUS(status), c->arg);
        return;
    }
    at = c->ready_at ? rs_restarts_ended(&c->restarts, now - c->ready_at, 1, now)
                     : rs_restarts_failed(&c->restarts, now);
    rs_log_warn("the control plane ended and is started again", "how=\"%s\" in_ms=%lld", how,
                (long long)((at > now ? at - now : 0) / RS_MS));
    if (at <= now)
        (void)on_again(&c->again);
    else
        start_later(c, at);
}

void rs_control_ready(struct rs_control *c)
{
    json_object_set_new(c->conf, "config", json_null()); /* it is among what was kept */
    json_object_set_new(c->conf, "forget", json_false());
    c->was_ready = true;
    c->ready_at = rs_clock_now();
    rs_restarts_ready(&c->restarts);
}

void rs_control_gone(struct rs_control *c)
{
    if (!c->stopping)
        rs_child_kill(&c->child, SIGKILL);
}

void rs_control_stopping(struct rs_control *c)
{
    c->stopping = true;
    rs_timer_stop(&c->again);
    rs_child_kill(&c->child, SIGUSR1);
}

static int open_sockets(struct rs_control *c, const struct rs_control_conf *conf,
                        struct rs_error *err)
{
    if (c->rest < 0 && rs_port_listen(conf->dashboard_host, conf->dashboard_port,
                                      "--dashboard-port", &c->rest, &c->rest_at, err) < 0)
        return -1;
    return rs_tcp_listen(conf->join, &c->joins, err);
}

/* Both sockets listen, or -1. The control plane of a head that was killed a moment ago, and whose
 * supervisor is quick, may have them still. */
static int open_sockets_in_time(struct rs_control *c, const struct rs_control_conf *conf,
                                struct rs_error *err)
{
    const struct timespec pause = {.tv_nsec = 20 * RS_MS};

    for (int i = 0; i < 25; i++) {
        *err = (struct rs_error){0};
        if (open_sockets(c, conf, err) == 0)
            return 0;
        nanosleep(&pause, NULL);
    }
    return -1;
}

static json_t *conf_json(const struct rs_control_conf *conf)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:b, s:s?, s:s, s:s, s:b, s:b, s:b, s:b, s:o}",
                     "node_id", conf->node_id, "app_dir", conf->app_dir, "http_host",
                     conf->http_host, "http_port", (int)conf->http_port, "https", conf->https,
                     "driver_socket", conf->driver_socket, "values_dir", conf->values_dir,
                     "keep_dir", conf->keep_dir, "forget", conf->forget, "quiet", conf->quiet,
                     "verbose", conf->verbose, "json", conf->json, "config",
                     conf->config ? rs_config_keep(conf->config) : json_null());
}

int rs_control_new(struct rs_control **ret, struct rs_loop *loop,
                   const struct rs_control_conf *conf, const struct rs_control_ops *ops, void *arg,
                   struct rs_error *err)
{
    struct rs_control *c = rs_alloc(sizeof(*c));

    c->loop = loop;
    c->ops = *ops;
    c->arg = arg;
    c->child.on_exit = on_exit_of_child;
    c->again.fn = on_again;
    c->rest = c->joins = -1;
    c->conf = conf_json(conf);
    if (!c->conf)
        rs_error_set(err, RS_INVALID, "a path of this head is not UTF-8");
    if (!c->conf || open_sockets_in_time(c, conf, err) < 0 || start(c, err) < 0) {
        rs_control_free(c);
        return -1;
    }
    *ret = c;
    return 0;
}

/* It closes its files and ends; one that does not is killed. */
static void end_child(struct rs_control *c)
{
    struct pollfd ended = {.fd = c->child.io.fd, .events = POLLIN};
    pid_t pid = c->child.pid;
    int r;

    if (pid <= 0)
        return;
    rs_child_kill(&c->child, SIGTERM);
    do
        r = poll(&ended, 1, END_MS);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        rs_child_kill(&c->child, SIGKILL);
    rs_child_release(&c->child);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

void rs_control_free(struct rs_control *c)
{
    if (!c)
        return;
    c->stopping = true;
    rs_timer_stop(&c->again);
    end_child(c);
    rs_closep(&c->rest);
    rs_closep(&c->joins);
    json_decref(c->conf);
    free(c);
}

uint16_t rs_control_port(const struct rs_control *c)
{
    return rs_address_port(&c->rest_at);
}

void rs_control_join_address(const struct rs_control *c, char *out, size_t size)
{
    struct rs_address at = {.len = sizeof(at.sa)};

    out[0] = '\0';
    if (getsockname(c->joins, (struct sockaddr *)&at.sa, &at.len) == 0)
        rs_address_print(&at, out, size);
}
