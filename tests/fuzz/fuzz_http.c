/* Bytes that an HTTP client sends, to a whole data plane: its ingress, its queue, and a replica that
 * sends back what it gets, WebSocket messages too. A connection may carry several requests; pieces of
 * the input that are divided by a byte 0xff are sent one after the other. An input that begins with
 * 0xfe goes to a listener that expects a PROXY header. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/router/dataplane.h"
#include "net/wire/conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rs_dataplane *dp, *behind_proxy;

/* --- the replica ------------------------------------------------------------------------------- */

/* Accepts; with a query that begins with "s" it ends at once. Records are the same in both directions,
 * so all that comes goes back (echo). */
static void accept_websocket(struct rs_conn *c, const struct rs_frame *f, bool ends)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_STATUS, 101);
    rs_conn_send(c, RS_MSG_RESPONSE, ends ? RS_FRAME_END : 0, f->h.stream, rs_buf_head(&meta),
                 rs_buf_len(&meta), NULL, 0);
    rs_buf_fini(&meta);
}

static void echo(struct rs_conn *c, const struct rs_frame *f)
{
    struct rs_buf credit = {0};

    if (f->h.body_len)
        rs_field_put_uint(&credit, RS_TAG_CREDIT, f->h.body_len);
    if (f->h.body_len && !(f->h.flags & RS_FRAME_END))
        rs_conn_send(c, RS_MSG_WINDOW, 0, f->h.stream, rs_buf_head(&credit), rs_buf_len(&credit),
                     NULL, 0);
    rs_conn_send(c, RS_MSG_BODY, f->h.flags & RS_FRAME_END, f->h.stream, NULL, 0, f->body,
                 f->body ? (size_t)f->h.body_len : 0);
    rs_buf_fini(&credit);
}

static void answer(struct rs_conn *c, const struct rs_frame *f)
{
    struct rs_error err = {0};
    struct rs_buf meta = {0};
    struct rs_fields fields;
    bool streams;

    assert(rs_fields_parse(f->meta, f->h.meta_len, &fields, &err) == 0);
    assert(rs_fields_has(&fields, RS_TAG_PATH) && rs_fields_has(&fields, RS_TAG_REQUEST_ID));
    assert(fields.at[RS_TAG_HEADERS].len == 0 ||
           fields.at[RS_TAG_HEADERS].data[fields.at[RS_TAG_HEADERS].len - 1] == '\0');
    streams = fields.at[RS_TAG_QUERY].len && fields.at[RS_TAG_QUERY].data[0] == 's';
    if (rs_fields_uint(&fields, RS_TAG_KIND, 0) == RS_REQUEST_WEBSOCKET) {
        accept_websocket(c, f, streams);
        return;
    }
    rs_field_put_uint(&meta, RS_TAG_STATUS, 200);
    rs_field_put(&meta, RS_TAG_HEADERS, fields.at[RS_TAG_HEADERS].data,
                 fields.at[RS_TAG_HEADERS].len);
    rs_conn_send(c, RS_MSG_RESPONSE, streams ? 0 : RS_FRAME_END, f->h.stream, rs_buf_head(&meta),
                 rs_buf_len(&meta), f->body, f->body ? (size_t)f->h.body_len : 0);
    if (streams)
        rs_conn_send(c, RS_MSG_BODY, RS_FRAME_END, f->h.stream, NULL, 0, "end", 3);
    rs_buf_fini(&meta);
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    (void)arg;
    if (f->h.type == RS_MSG_REQUEST)
        answer(c, f);
    else if (f->h.type == RS_MSG_BODY)
        echo(c, f);
}

static void on_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    (void)c;
    (void)arg;
    fprintf(stderr, "the node hung up on its replica: %s\n", why->msg);
    abort();
}

static void *replica_main(void *arg)
{
    static const struct rs_conn_ops ops = {.on_frame = on_frame, .on_close = on_close};
    static const char ready[] = "{\"websocket\": true}";
    struct rs_error err = {0};
    struct rs_loop *loop;
    struct rs_conn *c;

    if (rs_loop_new(&loop, &err) < 0 || rs_conn_new(&c, loop, *(int *)arg, &ops, NULL, &err) < 0)
        abort();
    rs_conn_send(c, RS_MSG_READY, 0, 0, ready, sizeof(ready) - 1, NULL, 0);
    (void)rs_loop_run(loop);
    return NULL;
}

/* --- the data plane ---------------------------------------------------------------------------- */

static void on_replica(const char *id, enum rs_msg type, uint64_t stream, json_t *msg, void *arg)
{
    abort();
}

static void on_replica_event(const char *id, void *arg)
{
    abort();
}

static void on_replica_gone(const char *id, const char *why, void *arg)
{
    abort();
}

static struct rs_dataplane *start(bool proxy)
{
    static const struct rs_dataplane_ops ops = {on_replica, on_replica_gone, on_replica_event};
    json_t *trusted = json_pack("[s]", "127.0.0.1");
    struct rs_ingress_conf conf = {.host = "127.0.0.1",
                                   .request_timeout = RS_SEC,
                                   .keep_alive_timeout = RS_SEC,
                                   .buffer_body = 1000,
                                   .max_body = 10000,
                                   .max_header = 8 << 10,
                                   .proxy_protocol = proxy,
                                   .trusted_proxies = trusted,
                                   .lanes = 1};
    static const struct rs_route_app apps[] = {{"app", "/", "front"}, {"none", "/none", "absent"}};
    static const struct rs_route_deployment deployments[] = {
        {.app = "app", .name = "front", .max_ongoing = 100, .max_queued = 0},
        {.app = "none", .name = "absent", .max_ongoing = 1, .max_queued = 0, .retry_after_s = 0.5}};
    int *pair = rs_alloc(2 * sizeof(int)); /* the thread's, for ever */
    struct rs_error err = {0};
    struct rs_dataplane *d;
    struct rs_loop *control;
    pthread_t thread;

    if (rs_loop_new(&control, &err) < 0 ||
        rs_dataplane_new(&d, control, &conf, rs_metrics_new(), &ops, NULL, &err) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        pthread_create(&thread, NULL, replica_main, &pair[1]) != 0)
        abort();
    rs_dataplane_routes(d, &(struct rs_routes){.apps = apps,
                                               .n_apps = 2,
                                               .deployments = deployments,
                                               .n_deployments = 2,
                                               .populated = true});
    rs_dataplane_attach(d, "app", "front", NULL, "r1", pair[0]);
    rs_dataplane_admit(d, "r1");
    json_decref(trusted);
    return d;
}

/* --- the client -------------------------------------------------------------------------------- */

static int connect_to_it(const struct rs_dataplane *d)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(rs_dataplane_port(d)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        abort();
    return fd;
}

/* What comes within a moment. False: the connection ended. */
static bool drain(int fd, int ms, char *first)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char buf[65536];

    while (poll(&p, 1, ms) > 0) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);

        if (n <= 0)
            return false;
        if (!first[0])
            memcpy(first, buf, n < 12 ? (size_t)n : 12);
    }
    return true;
}

static void check_alive(void)
{
    static const char ask[] = "GET /?s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char first[16] = "";
    int fd = connect_to_it(dp);

    if (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) < 0)
        abort();
    (void)drain(fd, 5000, first);
    if (strncmp(first, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "no good answer any more: %s\n", first);
        abort();
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned inputs;
    char first[16] = "";
    bool open = true, proxy = size && data[0] == 0xfe;
    int fd;

    if (!dp) {
        dp = start(false);
        behind_proxy = start(true);
    }
    data += proxy;
    size -= proxy;
    fd = connect_to_it(proxy ? behind_proxy : dp);
    while (open && size) {
        const uint8_t *gap = memchr(data, 0xff, size);
        size_t n = gap ? (size_t)(gap - data) : size;

        if (n && send(fd, data, n, MSG_NOSIGNAL) < 0)
            break;
        data += gap ? n + 1 : n;
        size -= gap ? n + 1 : n;
        open = drain(fd, size ? 1 : 3, first);
    }
    if (first[0] && strncmp(first, "HTTP/1.1 ", 9) != 0) {
        fprintf(stderr, "an answer that begins with: %s\n", first);
        abort();
    }
    close(fd);
    if (inputs++ % 32 == 0)
        check_alive();
    return 0;
}
