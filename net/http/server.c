#include "net/http/server.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/http/ingress-internal.h"
#include "net/http/mhd_pool.h"
#include "net/http/port.h"
#include "net/router/dataplane-internal.h"
#include "net/wire/tcp.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    RUNS_MAX = 16, /* of the daemon in one turn: then the loop's other work */
/* libmicrohttpd's memory per connection. Half of it is what it receives at once; what is not
     * touched costs nothing, unless it is its own pool, which it wipes. */
#ifdef RS_MHD_POOL
    POOL_MIN = 256 << 10,
#else
    POOL_MIN = 32 << 10,
#endif
    POOL_EXTRA = 8 << 10,   /* beyond the header: its own lists, and the answer's header */
    OTHERS = 32,            /* descriptors, besides a quarter of all */
    HEADER_MAX = 512 << 10, /* it has to fit into a frame's metadata */
};

/* --- wait, suspend, resume, cut ---------------------------------------------------------------- */

/* A connection that was suspended is taken for one that can be read, so its next request costs a vain
 * recv and two more runs. So one whose answer is likely to come soon is not suspended: libmicrohttpd
 * takes it for one that is never ready and asks for its answer in each run, which is cheap. It is
 * suspended after all when it was asked POLLS_MAX times, or when nothing at all has happened for
 * SETTLE: as long as one waits, MHD_get_timeout can only say "at once", and what else there may be to
 * do is known from `follow`. What that overlooks is found by then. */
enum { POLLS_MAX = 32 };
#define SETTLE (2 * RS_MS)

void rs_http_unwait(struct rs_http_request *req)
{
    if (req->waits)
        req->server->waiting--;
    req->waits = false;
    req->polls = 0;
    rs_list_remove(&req->turn);
}

void rs_http_suspend(struct rs_http_request *req)
{
    assert(!req->suspended && req->mc);
    rs_http_unwait(req);
    req->suspended = true;
    req->was_suspended = true;
    MHD_suspend_connection(req->mc);
}

void rs_http_wait(struct rs_http_request *req)
{
    struct rs_http_server *s = req->server;

    assert(s->running && !req->suspended);
    if (s->settle || req->polls++ >= POLLS_MAX) {
        rs_http_suspend(req);
    } else if (!req->waits) {
        req->waits = true;
        s->waiting++;
    }
}

void rs_http_follow(struct rs_http_server *s, unsigned runs)
{
    runs += s->running; /* the one under way is counted too when it ends */
    if (s->follow < runs)
        s->follow = runs;
}

void rs_http_wake(struct rs_http_server *s)
{
    if (!s->dirty && !s->in_after) { /* an answer may come from a hook that runs after ours */
        rs_after_remove(&s->after);
        rs_after_add(s->lane->loop, &s->after);
    }
    s->dirty = true;
}

void rs_http_resume(struct rs_http_request *req)
{
    struct rs_http_server *s = req->server;

    if (!rs_http_waits(req) || !req->mc)
        return;
    if (req->suspended) {
        req->suspended = false;
        MHD_resume_connection(req->mc);
    } else {
        rs_http_unwait(req);
        rs_list_push_back(&s->ready, &req->turn);
        rs_http_follow(s, 2);
    }
    rs_http_wake(s);
}

void rs_http_cut(struct rs_http_request *req)
{
    req->abort = true;
    if (req->websocket)
        rs_websocket_cut(req);
    else if (req->mc)
        (void)shutdown(req->conn->fd.io.fd, SHUT_RDWR);
    rs_http_resume(req);
}

/* --- connections ------------------------------------------------------------------------------- */

/* libmicrohttpd does not look at a connection while it waits: this does. */
static void on_hup(struct rs_mhd_fd *f)
{
    struct rs_http_conn *c = rs_container_of(f, struct rs_http_conn, fd);

    if (rs_front_is_late(c->front))
        return;
    if (c->req && rs_http_waits(c->req))
        rs_http_request_hup(c->req);
    else if (!c->gone)
        rs_list_push_back(&c->server->hung, &c->hung);
    c->gone = true;
}

static void on_events(struct rs_mhd_events *e)
{
    rs_http_wake(rs_container_of(e, struct rs_http_server, events));
}

/* Memory of connections that have been idle for REST_AFTER goes back to the kernel, that of many at
 * once; the timer runs only while there are some that have not been idle for so long. */
#define REST_AFTER RS_SEC

static int on_tired(struct rs_timer *t)
{
    struct rs_http_server *s = rs_container_of(t, struct rs_http_server, tired);
    int64_t now = rs_loop_now(s->lane->loop);

    while (!rs_list_empty(&s->idle)) {
        struct rs_http_conn *c = rs_container_of(s->idle.next, struct rs_http_conn, rest);

        if (c->idle_since + REST_AFTER > now) {
            rs_timer_start(&s->tired, s->lane->loop, c->idle_since + REST_AFTER);
            break;
        }
        rs_list_remove(&c->rest);
        rs_mhd_pool_rest(c->pool);
    }
    return 0;
}

void rs_http_idle(struct rs_http_conn *c)
{
    struct rs_http_server *s = c->server;

    c->req = NULL;
    c->idle_since = rs_loop_now(s->lane->loop);
    rs_list_push_back(&s->idle, &c->rest);
    if (!s->tired.loop)
        rs_timer_start(&s->tired, s->lane->loop, c->idle_since + REST_AFTER);
}

/* At the limit libmicrohttpd stops accepting. It accepts again in the run after the one in which a
 * connection ended, so that one is needed. */
static void count_conns(struct rs_http_server *s, int more)
{
    if (s->n_conns == s->n_conns_max && more < 0) {
        rs_http_follow(s, 2);
        rs_http_wake(s);
    }
    s->n_conns = more < 0 ? s->n_conns - 1 : s->n_conns + 1;
    if (s->n_conns == s->n_conns_max && !s->full_told) {
        s->full_told = true;
        rs_log_warn("connections have to wait",
                    "listener=\"HTTP\" why=\"%u are open, the most for a lane\"", s->n_conns);
    } else if (s->full_told && s->n_conns < s->n_conns_max - s->n_conns_max / 8) {
        s->full_told = false;
        rs_log_info("connections are accepted again", "listener=\"HTTP\"");
    }
}

static void on_open(struct rs_http_server *s, struct MHD_Connection *mc, void **socket_context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
    int fd = info->connect_fd;
    struct rs_http_conn *c = rs_alloc(sizeof(*c));

    c->server = s;
    rs_http_origin_open(c, fd);
    if (rs_mhd_fd_open(&s->events, &c->fd, fd) < 0)
        c->gone = true; /* out of memory: nothing is served that cannot be cancelled */
    rs_list_init(&c->link);
    rs_list_init(&c->rest);
    rs_list_init(&c->hung);
    rs_list_push_back(&s->conns, &c->link);
    count_conns(s, 1);
    rs_mhd_pool_find(&c->pool);
    rs_http_idle(c);
    c->front = rs_front_open(&s->front, fd);
    if (s->conf->proxy_protocol && c->trusted)
        rs_front_expect_proxy(c->front, rs_http_origin_proxied, c);
    *socket_context = c;
}

static void on_connection(void *arg, struct MHD_Connection *mc, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct rs_http_conn *c = *socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        on_open(arg, mc, socket_context);
        return;
    }
    if (!c)
        return;
    rs_mhd_fd_close(&c->fd);
    rs_list_remove(&c->link);
    rs_list_remove(&c->rest);
    rs_list_remove(&c->hung);
    rs_mhd_pool_leave(&c->pool);
    count_conns(c->server, -1);
    rs_http_origin_close(c);
    rs_front_release(c->front);
    free(c);
    *socket_context = NULL;
}

/* --- the daemon's callbacks -------------------------------------------------------------------- */

/* Before the request line is taken apart: the only time that the raw target is seen. What is
 * returned becomes the request's context. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *mc)
{
    char *query = target ? strchr((char *)(uintptr_t)target, '?') : NULL;
    struct rs_http_request *req = rs_http_request_new(arg, mc, target ? target : "");

    /* The line lies in the connection's own buffer, and the query would be parsed into arguments
     * that nobody reads: cut it off. */
    if (query && query[1])
        query[1] = '\0';
    return req;
}

static size_t keep_escapes(void *arg, struct MHD_Connection *mc, char *text)
{
    (void)arg;
    (void)mc;
    return strlen(text);
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *mc, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **context)
{
    (void)url;
    if (!*context)
        *context = rs_http_request_new(arg, mc, url ? url : "");
    return rs_http_request_step(*context, method, version, data, size);
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)mc;
    if (*context)
        rs_http_request_done(*context, code != MHD_REQUEST_TERMINATED_COMPLETED_OK);
    *context = NULL;
}

/* --- in the loop ------------------------------------------------------------------------------- */

static void run(struct rs_http_server *s)
{
    s->dirty = false;
    s->ran_at = rs_loop_now(s->lane->loop);
    s->running = true;
    rs_front_enter(&s->front);
    rs_mhd_events_enter(&s->events);
    rs_mhd_accept_for(&s->starved);
    (void)MHD_run(s->daemon);
    s->running = false;
    s->follow -= s->follow > 0;
}

static int on_daemon(struct rs_io *io, uint32_t events)
{
    struct rs_http_server *s = rs_container_of(io, struct rs_http_server, io);

    (void)events;
    s->events.own = true;
    rs_http_wake(s);
    return 0;
}

/* Answers for connections that were not suspended are handed over from outside: libmicrohttpd makes
 * the header at once, and the next run sends it. */
static void queue_ready(struct rs_http_server *s)
{
    while (!rs_list_empty(&s->ready)) {
        struct rs_http_request *req = rs_container_of(s->ready.next, struct rs_http_request, turn);

        rs_list_remove(&req->turn);
        if (req->stage == RS_HTTP_WAITING && req->response && !req->abort &&
            rs_http_queue(req) == MHD_NO)
            req->abort = true;
    }
}

/* libmicrohttpd has nothing more to do. *ms: until it has, -1: for ever. */
static bool is_done(struct rs_http_server *s, int64_t *ms)
{
    MHD_UNSIGNED_LONG_LONG left = 0;

    *ms = -1;
    if (s->dirty)
        return false;
    if (s->waiting)
        return !s->follow;
    if (MHD_get_timeout(s->daemon, &left) == MHD_NO)
        return true;
    *ms = left > INT64_MAX / RS_MS ? -1 : (int64_t)left;
    return left > 0;
}

static void show_ongoing(struct rs_http_server *s)
{
    if (s->n_requests == s->n_shown)
        return;
    rs_series_add(s->ongoing, (double)s->n_requests - (double)s->n_shown);
    atomic_store_explicit(&s->lane->ongoing, s->n_requests, memory_order_relaxed);
    s->n_shown = s->n_requests;
}

/* What their clients sent before they hung up was read; now it sees that there is no more. */
static void end_hung(struct rs_http_server *s)
{
    while (!rs_list_empty(&s->hung)) {
        struct rs_http_conn *c = rs_container_of(s->hung.next, struct rs_http_conn, hung);

        rs_list_remove(&c->hung);
        rs_mhd_fd_look_again(&c->fd);
    }
}

/* One run is not enough to receive, answer or finish a request, so it is asked for more until it has
 * none. */
static int64_t on_after(struct rs_after *a)
{
    struct rs_http_server *s = rs_container_of(a, struct rs_http_server, after);
    int64_t now = rs_loop_now(s->lane->loop), ms = -1;

    s->in_after = true;
    if (s->waiting && (s->long_replies || now - s->ran_at >= SETTLE))
        s->settle = s->dirty = true;
    for (int runs = 0; runs < RUNS_MAX; runs++) {
        queue_ready(s);
        if (is_done(s, &ms))
            break;
        run(s);
    }
    s->settle = s->in_after = false;
    show_ongoing(s);
    if (s->log)
        rs_http_log_turn(s);
    if (!is_done(s, &ms))
        return 0;
    end_hung(s);
    if (s->dirty)
        return 0;
    if (s->waiting)
        return s->ran_at + SETTLE - now;
    return ms < 0 ? -1 : ms * RS_MS;
}

/* --- its own life ------------------------------------------------------------------------------ */

static int listen_on(const char *host, uint16_t *port, int *ret, struct rs_error *err)
{
    struct rs_address at;
    char text[160];
    int fd;

    snprintf(text, sizeof(text), strchr(host, ':') && host[0] != '[' ? "[%s]:%u" : "%s:%u", host,
             *port);
    if (rs_address_parse(text, -1, &at, err) < 0)
        return -1;
    fd = socket(at.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot create a socket for %s", text);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&at.sa, at.len) < 0 || listen(fd, 4096) < 0) {
        int e = errno;

        close(fd);
        return rs_port_error(err, e, host, *port, "--port");
    }
    at.len = sizeof(at.sa);
    (void)getsockname(fd, (struct sockaddr *)&at.sa, &at.len);
    *port = rs_address_port(&at);
    *ret = fd;
    return 0;
}

static size_t pool_size(const struct rs_ingress_conf *conf)
{
    size_t header = conf->max_header > HEADER_MAX ? HEADER_MAX : conf->max_header;

    return header + POOL_EXTRA > POOL_MIN ? header + POOL_EXTRA : POOL_MIN;
}

static unsigned connection_limit(const struct rs_ingress_conf *conf)
{
    unsigned lanes = conf->lanes ? conf->lanes : 1;
    struct rlimit files;
    uint64_t most = 65536;

    if (conf->max_connections)
        return (conf->max_connections + lanes - 1) / lanes;
    /* The others are for bodies, replicas and the REST API. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / 4 * 3 < most * lanes + OTHERS)
        most = files.rlim_cur / 4 * 3 > OTHERS ? (files.rlim_cur / 4 * 3 - OTHERS) / lanes : 0;
    return most > 0 ? (unsigned)most : 1;
}

int rs_http_server_new(struct rs_http_server **ret, struct rs_lane *lane, uint16_t *port,
                       struct rs_error *err)
{
    const struct rs_ingress_conf *conf = rs_dataplane_conf(lane->dataplane);
    struct rs_http_server *s = rs_alloc(sizeof(*s));
    int64_t idle = (conf->keep_alive_timeout + RS_SEC - 1) / RS_SEC;
    const union MHD_DaemonInfo *info;
    int fd = -1;

    if (listen_on(conf->host, port, &fd, err) < 0) {
        free(s);
        return -1;
    }
    s->lane = lane;
    s->conf = conf;
    s->n_conns_max = connection_limit(conf);
    rs_trusted_init(&s->trusted, conf->trusted_proxies);
    s->events = (struct rs_mhd_events){.wake = on_events, .hup = on_hup};
    rs_mhd_events_init(&s->events, lane->loop);
    rs_front_init(&s->front, lane->loop, conf->max_header, conf->header_timeout);
    s->front.tls = rs_dataplane_tls(lane->dataplane);
    rs_list_init(&s->conns);
    rs_list_init(&s->hung);
    rs_list_init(&s->requests);
    rs_list_init(&s->spare);
    rs_list_init(&s->ready);
    rs_list_init(&s->idle);
    s->tired.fn = on_tired;
    s->ongoing = rs_family_series(lane->metrics->http_ongoing,
                                  (const char *const[]){conf->node_id, conf->node_ip});
    if (getrandom(s->random, sizeof(s->random), 0) != sizeof(s->random))
        s->random[0] = (uint64_t)rs_clock_now() | 1;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL,
        on_access, s, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, s->n_conns_max,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(idle > 0 ? idle : 0),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, pool_size(conf), MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_END);
    if (!s->daemon) {
        close(fd);
        free(s);
        return rs_error_set(err, RS_SYSTEM, "cannot start the HTTP server on port %u", *port);
    }
    info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    s->events.epoll_fd = info->epoll_fd;
    s->io = (struct rs_io){.fd = info->epoll_fd, .fn = on_daemon};
    if (rs_io_start(&s->io, lane->loop, EPOLLIN, err) < 0) {
        MHD_stop_daemon(s->daemon);
        free(s);
        return -1;
    }
    rs_starved_init(&s->starved, &s->io, lane->loop, "HTTP");
    s->after.fn = on_after;
    rs_after_add(lane->loop, &s->after);
    if (rs_http_log_open(s, err) < 0) {
        rs_http_server_free(s);
        return -1;
    }
    *ret = s;
    return 0;
}

void rs_http_server_stop_accepting(struct rs_http_server *s)
{
    int fd;

    if (!s || s->stopping)
        return;
    s->stopping = true;
    fd = MHD_quiesce_daemon(s->daemon);
    if (fd >= 0)
        close(fd);
    rs_list_for_each (it, &s->requests)
        rs_websocket_restart(rs_container_of(it, struct rs_http_request, link));
}

void rs_http_server_free(struct rs_http_server *s)
{
    if (!s)
        return;
    /* None may be suspended when the daemon stops. */
    rs_list_for_each (it, &s->requests)
        rs_http_cut(rs_container_of(it, struct rs_http_request, link));
    run(s);
    rs_starved_stop(&s->starved);
    rs_io_stop(&s->io);
    rs_after_remove(&s->after);
    rs_http_server_stop_accepting(s);
    MHD_stop_daemon(s->daemon);
    rs_timer_stop(&s->tired);
    rs_http_log_close(s);
    rs_front_fini(&s->front);
    rs_trusted_fini(&s->trusted);
    rs_buf_fini(&s->via.chain);
    rs_buf_fini(&s->via.proto);
    rs_buf_fini(&s->via.forwarded);
    rs_mhd_events_fini(&s->events);
    while (!rs_list_empty(&s->requests)) { /* those whose clients have gone */
        struct rs_http_request *req =
            rs_container_of(s->requests.next, struct rs_http_request, link);

        rs_http_request_cancel(req);
        rs_http_request_release(req);
    }
    show_ongoing(s);
    while (!rs_list_empty(&s->spare))
        rs_http_request_free(rs_container_of(s->spare.next, struct rs_http_request, link));
    free(s);
}
