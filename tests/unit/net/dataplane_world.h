/* A whole data plane in one process: fake replicas at the ends of socket pairs, raw HTTP over TCP.
 *
 * The test's own thread is the control thread, and plays clients and replicas with blocking sockets
 * (5 s, then the test fails). Nothing sleeps: what has to happen first is waited for by its effect.
 */
#pragma once

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/router/dataplane.h"
#include "net/wire/frame.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-function" /* no test needs all of it */

enum { EVENTS_MAX = 64 };

struct event {
    char what[16]; /* name of the message, "gone", "idle" */
    char id[64], text[512];
    uint64_t stream;
};

struct world {
    struct rs_loop *control;
    struct rs_metrics *metrics;
    struct rs_dataplane *dp;
    struct event events[EVENTS_MAX];
    size_t n_events, seen;
};

static struct event *push_event(struct world *w, const char *what, const char *id)
{
    struct event *e = &w->events[w->n_events++];

    ck_assert_uint_lt(w->n_events, EVENTS_MAX);
    snprintf(e->what, sizeof(e->what), "%s", what);
    snprintf(e->id, sizeof(e->id), "%s", id);
    return e;
}

static void on_replica(const char *id, enum rs_msg type, uint64_t stream, json_t *msg, void *arg)
{
    struct event *e = push_event(arg, rs_msg_name((uint8_t)type), id);
    rs_auto(rs_freep) char *text = rs_json_dump(msg);

    snprintf(e->text, sizeof(e->text), "%s", text);
    e->stream = stream;
}

static void on_replica_gone(const char *id, const char *why, void *arg)
{
    struct event *e = push_event(arg, "gone", id);

    snprintf(e->text, sizeof(e->text), "%s", why);
}

static void on_replica_idle(const char *id, void *arg)
{
    push_event(arg, "idle", id);
}

static bool world_hears_load; /* else on_load is no event */

static void on_load(bool urgent, void *arg)
{
    if (world_hears_load)
        push_event(arg, "load", urgent ? "urgent" : "calm");
}

static const struct rs_dataplane_ops world_ops = {.on_load = on_load,
                                                  .on_replica = on_replica,
                                                  .on_replica_gone = on_replica_gone,
                                                  .on_replica_idle = on_replica_idle};

static const struct rs_ingress_conf world_conf = {
    .host = "127.0.0.1",
    .root_path = "",
    .keep_alive_timeout = 60 * RS_SEC,
    .buffer_body = 1 << 20,
    .max_body = 64 << 20,
    .max_header = 32 << 10,
    .max_connections = 1000,
    .lanes = 1,
    .node_id = "n1",
};

static void world_begin(struct world *w, const struct rs_ingress_conf *conf)
{
    struct rs_error err = {0};

    memset(w, 0, sizeof(*w));
    ck_assert_msg(rs_loop_new(&w->control, &err) == 0, "%s", err.msg);
    w->metrics = rs_metrics_new();
    ck_assert_msg(rs_dataplane_new(&w->dp, w->control, conf ? conf : &world_conf, w->metrics,
                                   &world_ops, w, &err) == 0,
                  "%s", err.msg);
}

static void world_end(struct world *w)
{
    rs_dataplane_free(w->dp);
    rs_loop_free(w->control);
    rs_metrics_free(w->metrics);
}

/* The next event, which must be this one. */
static struct event *expect_event(struct world *w, const char *what, const char *id)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;

    while (w->seen == w->n_events) {
        ck_assert_msg(rs_clock_now() < until, "no event, wanted %s of %s", what, id);
        rs_loop_turn(w->control, 100 * RS_MS);
    }
    ck_assert_str_eq(w->events[w->seen].what, what);
    ck_assert_str_eq(w->events[w->seen].id, id);
    return &w->events[w->seen++];
}

static void find_stat(const struct rs_dataplane_stat *s, void *arg)
{
    struct rs_dataplane_stat *want = arg;
    bool same_replica =
        s->replica_id == want->replica_id ||
        (s->replica_id && want->replica_id && strcmp(s->replica_id, want->replica_id) == 0);

    if (strcmp(s->app, want->app) == 0 && strcmp(s->deployment, want->deployment) == 0 &&
        same_replica)
        *want = *s;
}

static struct rs_dataplane_stat stat_of(struct world *w, const char *deployment, const char *id)
{
    struct rs_dataplane_stat s = {.app = "app", .deployment = deployment, .replica_id = id};

    rs_dataplane_stats(w->dp, find_stat, &s);
    return s;
}

/* Until so many wait in the queue of the deployment. */
static void wait_queued(struct world *w, const char *deployment, unsigned queued)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;

    while (stat_of(w, deployment, NULL).queued != queued) {
        ck_assert_msg(rs_clock_now() < until, "queue of %s never had %u", deployment, queued);
        rs_loop_turn(w->control, RS_MS);
    }
}

static void wait_ongoing(struct world *w, unsigned n)
{
    int64_t until = rs_clock_now() + 5 * RS_SEC;

    while (rs_dataplane_ongoing(w->dp) != n) {
        ck_assert_msg(rs_clock_now() < until, "never %u requests under way, but %u", n,
                      rs_dataplane_ongoing(w->dp));
        rs_loop_turn(w->control, RS_MS);
    }
}

/* --- routes ------------------------------------------------------------------------------------ */

/* What the application asks of the ingress, from the next world_routes on; NULL: nothing. Borrowed. */
static json_t *world_policy;

/* One application "app" at /, its ingress "front", and behind it "back". */
static void world_routes_with(struct world *w, struct rs_route_deployment front)
{
    struct rs_route_app app = {
        .name = "app", .prefix = "/", .ingress = "front", .policy = world_policy};
    struct rs_route_deployment deployments[2] = {
        front,
        {.app = "app", .name = "back", .max_ongoing = 8, .max_queued = -1, .retry_after_s = -1}};

    deployments[0].app = "app";
    deployments[0].name = "front";
    rs_dataplane_routes(w->dp, &(struct rs_routes){.apps = &app,
                                                   .n_apps = 1,
                                                   .deployments = deployments,
                                                   .n_deployments = 2,
                                                   .populated = true});
}

static void world_routes(struct world *w)
{
    world_routes_with(
        w, (struct rs_route_deployment){.max_ongoing = 8, .max_queued = -1, .retry_after_s = -1});
}

/* --- fake replicas ----------------------------------------------------------------------------- */

struct fake {
    int fd;
    struct rs_header h; /* of the last frame */
    char *meta, *body;
    struct rs_fields fields;
    int body_fd;
};

static void set_timeout(int fd)
{
    struct timeval t = {.tv_sec = 5};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static void fake_attach_version(struct world *w, struct fake *f, const char *deployment,
                                const char *version, const char *id)
{
    int pair[2];

    memset(f, 0, sizeof(*f));
    f->body_fd = -1;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    f->fd = pair[0];
    set_timeout(f->fd);
    rs_dataplane_attach(w->dp, "app", deployment, version, id, pair[1]);
}

static void fake_attach(struct world *w, struct fake *f, const char *deployment, const char *id,
                        bool admit)
{
    fake_attach_version(w, f, deployment, NULL, id);
    if (admit)
        rs_dataplane_admit(w->dp, id);
}

static void fake_drop_frame(struct fake *f)
{
    free(f->meta);
    free(f->body);
    f->meta = f->body = NULL;
    rs_closep(&f->body_fd);
}

static void fake_end(struct fake *f)
{
    fake_drop_frame(f);
    rs_closep(&f->fd);
}

/* Reads exactly so many bytes, descriptors into *fd; false at the end of the stream. */
static bool read_exactly(int fd, void *to, size_t len, int *passed)
{
    size_t done = 0;

    while (done < len) {
        union {
            char space[CMSG_SPACE(sizeof(int) * RS_FRAME_FDS_MAX)];
            struct cmsghdr align;
        } control;
        struct iovec iov = {(char *)to + done, len - done};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
        ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return false;
        ck_assert_msg(n > 0, "nothing to read: %s", strerror(errno));
        if (c && c->cmsg_type == SCM_RIGHTS && passed)
            memcpy(passed, CMSG_DATA(c), sizeof(int));
        done += (size_t)n;
    }
    return true;
}

/* The next frame, or false when the node has closed the connection. */
static bool fake_read(struct fake *f)
{
    uint8_t header[RS_FRAME_HEADER];
    struct rs_error err = {0};

    fake_drop_frame(f);
    if (!read_exactly(f->fd, header, sizeof(header), &f->body_fd))
        return false;
    ck_assert_msg(rs_header_decode(header, &f->h, &err) == 0, "%s", err.msg);
    f->meta = rs_alloc(f->h.meta_len + 1);
    ck_assert(read_exactly(f->fd, f->meta, f->h.meta_len, NULL));
    f->body = rs_alloc((size_t)f->h.body_len + 1);
    if (f->h.flags & RS_FRAME_MEMFD)
        ck_assert_int_eq(pread(f->body_fd, f->body, (size_t)f->h.body_len, 0), f->h.body_len);
    else
        ck_assert(read_exactly(f->fd, f->body, (size_t)f->h.body_len, NULL));
    if (f->h.type <= RS_MSG_WINDOW)
        ck_assert_msg(rs_fields_parse(f->meta, f->h.meta_len, &f->fields, &err) == 0, "%s",
                      err.msg);
    return true;
}

static void fake_expect(struct fake *f, enum rs_msg type)
{
    ck_assert_msg(fake_read(f), "the node closed the connection, wanted %s",
                  rs_msg_name((uint8_t)type));
    ck_assert_str_eq(rs_msg_name(f->h.type), rs_msg_name((uint8_t)type));
}

static void send_all(int fd, const void *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = send(fd, (const char *)data + done, len - done, MSG_NOSIGNAL);

        ck_assert_msg(n > 0, "cannot send: %s", strerror(errno));
        done += (size_t)n;
    }
}

static void fake_send(struct fake *f, enum rs_msg type, unsigned flags, uint64_t stream,
                      const struct rs_buf *meta, const void *body, size_t len)
{
    struct rs_header h = {.meta_len = meta ? (uint32_t)rs_buf_len(meta) : 0,
                          .type = (uint8_t)type,
                          .flags = (uint8_t)flags,
                          .stream = stream,
                          .body_len = len};
    struct rs_buf b = {0};

    rs_header_encode(&h, (uint8_t *)rs_buf_reserve(&b, RS_FRAME_HEADER));
    rs_buf_commit(&b, RS_FRAME_HEADER);
    if (meta)
        rs_buf_append(&b, rs_buf_head(meta), rs_buf_len(meta));
    rs_buf_append(&b, body ? body : "", len);
    send_all(f->fd, rs_buf_head(&b), rs_buf_len(&b));
    rs_buf_fini(&b);
}

/* With a body in a memfd, sealed as the library's are. */
static void fake_send_memfd(struct fake *f, enum rs_msg type, unsigned flags, uint64_t stream,
                            const struct rs_buf *meta, const void *body, size_t len)
{
    struct rs_header h = {.meta_len = meta ? (uint32_t)rs_buf_len(meta) : 0,
                          .type = (uint8_t)type,
                          .flags = (uint8_t)(flags | RS_FRAME_MEMFD),
                          .fds = 1,
                          .stream = stream,
                          .body_len = len};
    int fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct rs_buf b = {0};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    ck_assert_int_eq(write(fd, body, len), len);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
    rs_header_encode(&h, (uint8_t *)rs_buf_reserve(&b, RS_FRAME_HEADER));
    rs_buf_commit(&b, RS_FRAME_HEADER);
    if (meta)
        rs_buf_append(&b, rs_buf_head(meta), rs_buf_len(meta));
    iov = (struct iovec){rs_buf_head(&b), rs_buf_len(&b)};
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    ck_assert_int_eq(sendmsg(f->fd, &msg, MSG_NOSIGNAL), (ssize_t)rs_buf_len(&b));
    close(fd);
    rs_buf_fini(&b);
}

/* All that was told to the data plane about the replica's deployment has been done. */
static void fake_sync(struct world *w, struct fake *f, const char *id)
{
    rs_dataplane_tell(w->dp, id, RS_MSG_PING, 1, NULL);
    fake_expect(f, RS_MSG_PING);
}

/* "name: value\n..." as a RESPONSE's metadata; free with rs_buf_fini. */
static struct rs_buf response_meta(unsigned status, const char *headers)
{
    struct rs_buf meta = {0}, list = {0};

    for (const char *p = headers; p && *p;) {
        const char *colon = strchr(p, ':'), *end = strchr(p, '\n');

        rs_buf_append(&list, p, (size_t)(colon - p));
        rs_buf_append(&list, "", 1);
        rs_buf_append(&list, colon + 2, (size_t)(end - colon - 2));
        rs_buf_append(&list, "", 1);
        p = end + 1;
    }
    rs_field_put_uint(&meta, RS_TAG_STATUS, status);
    rs_field_put(&meta, RS_TAG_HEADERS, rs_buf_len(&list) ? rs_buf_head(&list) : "",
                 rs_buf_len(&list));
    rs_buf_fini(&list);
    return meta;
}

/* Answers the request that was read last. */
static void fake_answer(struct fake *f, unsigned status, const char *headers, const char *body,
                        size_t len, unsigned flags)
{
    struct rs_buf meta = response_meta(status, headers);

    if (len > RS_FRAME_MEMFD_MIN)
        fake_send_memfd(f, RS_MSG_RESPONSE, flags, f->h.stream, &meta, body, len);
    else
        fake_send(f, RS_MSG_RESPONSE, flags, f->h.stream, &meta, body, len);
    rs_buf_fini(&meta);
}

static void fake_ok(struct fake *f, const char *body)
{
    fake_answer(f, 200, "content-type: text/plain\n", body, strlen(body), RS_FRAME_END);
}

static void fake_error(struct fake *f, uint64_t stream, enum rs_wire_error code,
                       const char *message)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_ERROR_CODE, code);
    rs_field_put_str(&meta, RS_TAG_ERROR_TYPE, "ValueError");
    rs_field_put_str(&meta, RS_TAG_MESSAGE, message);
    fake_send(f, RS_MSG_ERROR, RS_FRAME_END, stream, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

/* A handle call to a deployment of "app". */
static void fake_call(struct fake *f, uint64_t stream, const char *deployment, uint64_t parent,
                      const char *body)
{
    struct rs_buf meta = {0};

    rs_field_put_uint(&meta, RS_TAG_KIND, RS_REQUEST_CALL);
    rs_field_put_str(&meta, RS_TAG_APP, "app");
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, deployment);
    rs_field_put_str(&meta, RS_TAG_REQUEST_ID, "r1");
    if (parent)
        rs_field_put_uint(&meta, RS_TAG_PARENT, parent);
    fake_send(f, RS_MSG_REQUEST, RS_FRAME_END, stream, &meta, body, strlen(body));
    rs_buf_fini(&meta);
}

static const char *fake_text(struct fake *f, enum rs_tag tag)
{
    static char text[4096];

    snprintf(text, sizeof(text), "%.*s", (int)f->fields.at[tag].len,
             f->fields.at[tag].data ? f->fields.at[tag].data : "(absent)");
    return text;
}

/* A header of the request that was read last; NULL: none. */
static const char *fake_header(struct fake *f, const char *name)
{
    const char *p = f->fields.at[RS_TAG_HEADERS].data;
    const char *end = p + f->fields.at[RS_TAG_HEADERS].len;

    while (p < end) {
        const char *value = p + strlen(p) + 1;

        if (strcmp(p, name) == 0)
            return value;
        p = value + strlen(value) + 1;
    }
    return NULL;
}

/* --- HTTP clients ------------------------------------------------------------------------------ */

struct client {
    int fd;
    struct rs_buf in;
    /* of the last answer */
    int status;
    char head[8192];
    struct rs_buf body;
    bool chunked, broken;
};

static void client_open_port(struct client *c, uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    memset(c, 0, sizeof(*c));
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_timeout(c->fd);
    ck_assert_int_eq(connect(c->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

static void client_open(struct client *c, struct world *w)
{
    client_open_port(c, rs_dataplane_port(w->dp));
}

static void client_close(struct client *c)
{
    rs_closep(&c->fd);
    rs_buf_fini(&c->in);
    rs_buf_fini(&c->body);
}

static void client_send(struct client *c, const char *text)
{
    send_all(c->fd, text, strlen(text));
}

static void client_get(struct client *c, const char *path)
{
    char text[4096];

    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    client_send(c, text);
}

/* False at the end of the stream. */
static bool client_fill(struct client *c)
{
    char *to = rs_buf_reserve(&c->in, 65536);
    ssize_t n = recv(c->fd, to, 65536, 0);

    if (n < 0 && errno == ECONNRESET)
        n = 0;
    ck_assert_msg(n >= 0, "no answer: %s", strerror(errno));
    rs_buf_commit(&c->in, (size_t)n);
    return n > 0;
}

/* A header's value; "" if there is none. The `nth` of that name. */
static const char *client_header_nth(struct client *c, const char *name, int nth)
{
    static char value[4096];
    const char *p = c->head;
    size_t len = strlen(name);

    while ((p = strchr(p, '\n'))) {
        p++;
        if (strncasecmp(p, name, len) != 0 || p[len] != ':' || nth--)
            continue;
        p += len + 1;
        while (*p == ' ')
            p++;
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(p, "\r\n"), p);
        return value;
    }
    return "";
}

static const char *client_header(struct client *c, const char *name)
{
    return client_header_nth(c, name, 0);
}

static bool has_header(struct client *c, const char *name)
{
    char line[128];

    snprintf(line, sizeof(line), "\n%s:", name);
    return strcasestr(c->head, line) != NULL;
}

/* The head of the next answer (1xx too). */
static void client_read_head(struct client *c)
{
    char *end;
    size_t len;

    while (!rs_buf_len(&c->in) || !(end = strstr(rs_buf_head(&c->in), "\r\n\r\n")))
        ck_assert_msg(client_fill(c), "the connection ended without an answer");
    len = (size_t)(end - rs_buf_head(&c->in)) + 4;
    ck_assert_uint_lt(len, sizeof(c->head));
    memcpy(c->head, rs_buf_head(&c->in), len);
    c->head[len] = '\0';
    rs_buf_consume(&c->in, len);
    ck_assert_int_eq(strncmp(c->head, "HTTP/1.1 ", 9), 0);
    c->status = atoi(c->head + 9);
    rs_buf_clear(&c->body);
    c->broken = false;
    c->chunked = strcasecmp(client_header(c, "transfer-encoding"), "chunked") == 0;
}

static bool take_bytes(struct client *c, size_t len)
{
    while (rs_buf_len(&c->in) < len) {
        if (!client_fill(c))
            return false;
    }
    rs_buf_append(&c->body, rs_buf_head(&c->in), len);
    rs_buf_consume(&c->in, len);
    return true;
}

/* One chunk into c->body; its length, 0 at the end, -1 if the connection broke. */
static int client_read_chunk(struct client *c)
{
    char *end;
    size_t len, line;

    while (!rs_buf_len(&c->in) || !(end = strstr(rs_buf_head(&c->in), "\r\n"))) {
        if (!client_fill(c)) {
            c->broken = true;
            return -1;
        }
    }
    len = strtoul(rs_buf_head(&c->in), NULL, 16);
    line = (size_t)(end - rs_buf_head(&c->in)) + 2;
    rs_buf_consume(&c->in, line);
    if (!take_bytes(c, len + 2)) {
        c->broken = true;
        return -1;
    }
    c->body.end -= 2; /* the line break */
    rs_buf_head(&c->body)[rs_buf_len(&c->body)] = '\0';
    return (int)len;
}

static void client_read_body(struct client *c, bool no_body)
{
    if (no_body)
        return;
    if (c->chunked) {
        while (client_read_chunk(c) > 0)
            ;
    } else if (has_header(c, "content-length")) {
        c->broken = !take_bytes(c, (size_t)atoll(client_header(c, "content-length")));
    } else {
        while (client_fill(c))
            ;
        rs_buf_append(&c->body, rs_buf_head(&c->in), rs_buf_len(&c->in));
        rs_buf_clear(&c->in);
    }
}

static void client_read(struct client *c)
{
    client_read_head(c);
    client_read_body(c, c->status == 204 || c->status == 304);
}

static void client_expect(struct client *c, int status, const char *body)
{
    client_read(c);
    ck_assert_msg(c->status == status, "status %d, wanted %d: %s%s", c->status, status, c->head,
                  rs_buf_text(&c->body));
    ck_assert(!c->broken);
    if (body)
        ck_assert_str_eq(rs_buf_text(&c->body), body);
}

/* Nothing more comes: the other side has closed. */
static void client_expect_end(struct client *c)
{
    ck_assert_uint_eq(rs_buf_len(&c->in), 0);
    ck_assert(!client_fill(c));
}

static bool metric_has(struct world *w, const char *line)
{
    struct rs_buf text = {0};
    bool found;

    rs_metrics_text(w->metrics, &text);
    found = strstr(rs_buf_text(&text), line) != NULL;
    rs_buf_fini(&text);
    return found;
}

/* The same, and says what there is instead. */
static bool metric_is(struct world *w, const char *line)
{
    struct rs_buf text = {0};

    if (metric_has(w, line))
        return true;
    rs_metrics_text(w->metrics, &text);
    fprintf(stderr, "no \"%s\" in\n%s\n", line, rs_buf_text(&text));
    rs_buf_fini(&text);
    return false;
}
