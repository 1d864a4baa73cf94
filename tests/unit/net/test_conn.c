/* Two connections, or one and raw bytes, over a Unix and over a TCP socket. */
#include "net/wire/conn.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum act { KEEP, FREE_IN_FRAME, FREE_IN_CLOSE, FREE_IN_DRAIN, PAUSE };

struct end {
    struct rs_conn *c;
    enum act act;
    int frames, closes, drains;
    bool inside; /* the test is inside a call of this connection */
    char why[500];
    struct rs_header last;
    struct rs_buf meta, body; /* of all frames */
    uint64_t streams[4096];
    bool memfd, ended;
    int fds[RS_FRAME_FDS_MAX];
};

static struct rs_loop *loop;
static struct end a, b; /* b may be a raw socket: raw */
static int raw = -1;

static void drop(struct end *e)
{
    rs_conn_free(e->c);
    e->c = NULL;
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct end *e = arg;

    ck_assert_int_eq(e->closes, 0);
    ck_assert(!e->ended);
    e->last = f->h;
    e->memfd = f->body_fd >= 0;
    ck_assert_int_eq(e->memfd, (f->h.flags & RS_FRAME_MEMFD) != 0);
    if (e->frames < (int)RS_COUNT(e->streams))
        e->streams[e->frames] = f->h.stream;
    e->frames++;
    rs_buf_append(&e->meta, f->meta, f->h.meta_len);
    if (e->memfd) {
        ck_assert_int_eq(
            pread(f->body_fd, rs_buf_reserve(&e->body, f->h.body_len), f->h.body_len, 0),
            (ssize_t)f->h.body_len);
        rs_buf_commit(&e->body, f->h.body_len);
    } else {
        rs_buf_append(&e->body, f->body, f->h.body_len);
    }
    for (size_t i = 0; i < RS_FRAME_FDS_MAX; i++)
        e->fds[i] = rs_steal_fd(&f->fds[i]);
    if (e->act == FREE_IN_FRAME) {
        e->ended = true;
        drop(e);
    }
    if (e->act == PAUSE)
        rs_conn_pause(c, true);
}

static void on_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    struct end *e = arg;

    ck_assert_msg(!e->inside, "on_close inside a call");
    ck_assert_int_eq(e->closes++, 0);
    ck_assert(rs_conn_closed(c));
    snprintf(e->why, sizeof(e->why), "%s", why->msg);
    if (e->act == FREE_IN_CLOSE)
        drop(e);
}

static void on_drain(struct rs_conn *c, void *arg)
{
    struct end *e = arg;

    ck_assert(!rs_conn_congested(c));
    e->drains++;
    if (e->act == FREE_IN_DRAIN)
        drop(e);
}

static const struct rs_conn_ops ops = {on_frame, on_close, on_drain};

static void tcp_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    getsockname(listener, (struct sockaddr *)&at, &len);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&at, sizeof(at)), 0);
    fds[1] = accept(listener, NULL, NULL);
    close(listener);
}

/* `two`: the other end is a connection, too. */
static void open_pair(bool tcp, bool two)
{
    int fds[2];

    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
    if (tcp)
        tcp_pair(fds);
    else
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ck_assert_int_eq(rs_conn_new(&a.c, loop, fds[0], &ops, &a, NULL), 0);
    if (two)
        ck_assert_int_eq(rs_conn_new(&b.c, loop, fds[1], &ops, &b, NULL), 0);
    else
        raw = fds[1];
}

static void close_pair(void)
{
    rs_conn_free(a.c);
    rs_conn_free(b.c);
    rs_closep(&raw);
    rs_buf_fini(&a.meta);
    rs_buf_fini(&a.body);
    rs_buf_fini(&b.meta);
    rs_buf_fini(&b.body);
    rs_loop_free(loop);
}

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        int64_t until_end_ = rs_clock_now() + 10 * RS_SEC;                                         \
        while (!(condition)) {                                                                     \
            rs_loop_turn(loop, 5 * RS_MS);                                                         \
            ck_assert_msg(rs_clock_now() < until_end_, "never: %s", #condition);                   \
        }                                                                                          \
    } while (0)

static char *pattern(size_t size)
{
    char *data = malloc(size + 1);

    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 257);
    return data;
}

struct size_case {
    bool tcp;
    size_t size;
    int frames;
};

static const struct size_case sizes[] = {
    {false, 0, 1},        {false, 1, 1},
    {false, 65536, 1},    {false, 65537, 1},
    {false, 30 << 20, 1}, {true, 0, 1},
    {true, 65536, 1},     {true, 65537, 1},
    {true, 1 << 20, 1},   {true, (1 << 20) + 1, 2},
    {true, 5 << 20, 5},
};

START_TEST(carries_bodies)
{
    const struct size_case *c = &sizes[_i];
    char *data = pattern(c->size);
    int fd;

    open_pair(c->tcp, true);
    rs_conn_send(a.c, RS_MSG_REQUEST, RS_FRAME_END, 2, "meta", 4, data, c->size);
    ck_assert_int_eq(b.frames, 0); /* not before the turn's end */
    UNTIL(b.frames == c->frames);
    ck_assert_uint_eq(rs_buf_len(&b.body), c->size);
    ck_assert_int_eq(memcmp(rs_buf_text(&b.body), data, c->size), 0);
    ck_assert_str_eq(rs_buf_text(&b.meta), "meta");
    ck_assert_int_eq(b.memfd, !c->tcp && c->size > RS_FRAME_MEMFD_MIN);
    ck_assert_uint_eq(b.last.flags & RS_FRAME_END, RS_FRAME_END);
    ck_assert_int_eq(b.last.type, c->frames > 1 ? RS_MSG_BODY : RS_MSG_REQUEST);

    fd = memfd_create("body", MFD_CLOEXEC); /* and as a file */
    ck_assert_int_eq(write(fd, data, c->size), (ssize_t)c->size);
    rs_buf_clear(&a.body);
    rs_conn_send_fd(b.c, RS_MSG_RESPONSE, RS_FRAME_END, 2, "answer", 6, fd, c->size);
    UNTIL(a.frames == c->frames);
    ck_assert_int_eq(memcmp(rs_buf_text(&a.body), data, c->size), 0);
    ck_assert_str_eq(rs_buf_text(&a.meta), "answer");
    ck_assert_int_eq(a.memfd, !c->tcp);
    ck_assert_uint_eq(a.last.flags & RS_FRAME_END, RS_FRAME_END);
    free(data);
    close_pair();
}
END_TEST

/* Each descriptor comes with its own frame, however much is gathered and however it is cut. */
START_TEST(keeps_order)
{
    enum { MANY = 900 };
    uint64_t sum = 0;

    open_pair(false, true);
    for (uint64_t i = 0; i < MANY; i++) {
        size_t size = i % 3 == 0 ? 70000 : i % 7;
        char *data = malloc(size + 1);

        memset(data, (int)(i % 251), size);
        rs_conn_send(a.c, RS_MSG_BODY, 0, i + 1, NULL, 0, data, size);
        sum += size;
        free(data);
        if (i % 50 == 0)
            rs_loop_turn(loop, 0);
    }
    UNTIL(b.frames == MANY);
    ck_assert_uint_eq(rs_buf_len(&b.body), sum);
    for (uint64_t i = 0, at = 0; i < MANY; i++) {
        size_t size = i % 3 == 0 ? 70000 : i % 7;

        ck_assert_uint_eq(b.streams[i], i + 1);
        for (size_t k = 0; k < size; k += 997)
            ck_assert_int_eq((unsigned char)rs_buf_head(&b.body)[at + k], (int)(i % 251));
        at += size;
    }
    close_pair();
}
END_TEST

START_TEST(passes_descriptors)
{
    json_t *j = json_pack("{s:s}", "replica_id", "r1");
    int fds[3];

    open_pair(false, true);
    for (int i = 0; i < 3; i++) {
        fds[i] = memfd_create("fd", MFD_CLOEXEC);
        ck_assert_int_eq(write(fds[i], "0123", (size_t)i + 1), i + 1);
    }
    rs_conn_send_json(a.c, RS_MSG_PING, 7, j);
    rs_conn_send_json_fds(a.c, RS_MSG_FORK, 0, j, fds, 3);
    UNTIL(b.frames == 2);
    ck_assert_str_eq(rs_buf_text(&b.meta), "{\"replica_id\":\"r1\"}{\"replica_id\":\"r1\"}");
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(lseek(b.fds[i], 0, SEEK_END), i + 1);
        ck_assert_int_eq(fcntl(b.fds[i], F_GETFD), FD_CLOEXEC);
        close(b.fds[i]);
    }
    ck_assert_int_eq(b.fds[3], -1);
    json_decref(j);
    close_pair();
}
END_TEST

/* What is too long for metadata is a body. */
static const struct {
    enum rs_msg type;
    size_t size;
    bool taken, in_body;
} longs[] = {
    {RS_MSG_TARGET, 1000, true, false},
    {RS_MSG_TARGET, 3 << 20, true, true},
    {RS_MSG_REPORT, (16 << 20) - 20, true, true},
    {RS_MSG_TARGET, 16 << 20, false, false},
};

START_TEST(carries_long_messages)
{
    size_t size = longs[_i].size;
    rs_auto(rs_freep) char *text = pattern(size);
    rs_auto(rs_json_decrefp) json_t *j = NULL, *got = NULL;
    struct rs_frame f = {.body_fd = -1};
    struct rs_error err = {0};

    memset(text, 'x', size);
    text[size] = '\0';
    j = json_pack("{s:s}", "text", text);
    open_pair(_i % 2, true);
    ck_assert_int_eq(rs_conn_offer_json(a.c, longs[_i].type, 0, j, &err), longs[_i].taken ? 0 : -1);
    if (longs[_i].taken) {
        UNTIL(b.frames == 1);
        ck_assert_int_eq(rs_buf_len(&b.body) > 0, longs[_i].in_body);
        ck_assert_int_eq(rs_buf_len(&b.meta) > 0, !longs[_i].in_body);
        f.h = b.last;
        f.meta = rs_buf_text(&b.meta);
        f.body = rs_buf_text(&b.body);
        ck_assert_int_eq(rs_frame_json(&f, &got, &err), 0);
        ck_assert(json_equal(got, j));
    } else {
        ck_assert_ptr_nonnull(strstr(err.msg, "limit"));
    }
    close_pair();
}
END_TEST

START_TEST(tells_when_it_is_congested)
{
    char *data = pattern(60000);
    char sink[65536];
    size_t sent = 0, got = 0;

    open_pair(false, false);
    a.act = _i ? FREE_IN_DRAIN : KEEP;
    while (!rs_conn_congested(a.c)) {
        rs_conn_send(a.c, RS_MSG_BODY, 0, 2, NULL, 0, data, 60000);
        sent += 60000 + RS_FRAME_HEADER;
    }
    ck_assert_uint_gt(sent, 1 << 20);
    rs_loop_turn(loop, 0);
    ck_assert_int_eq(a.drains, 0);
    while (got < sent && a.c) {
        ssize_t n = recv(raw, sink, sizeof(sink), MSG_DONTWAIT);

        got += n > 0 ? (size_t)n : 0;
        rs_loop_turn(loop, 0);
    }
    ck_assert_int_eq(a.drains, 1);
    ck_assert_int_eq(a.c == NULL, _i);
    free(data);
    close_pair();
}
END_TEST

static void send_raw(const struct rs_header *h, const char *rest, size_t len)
{
    uint8_t head[RS_FRAME_HEADER];

    rs_header_encode(h, head);
    ck_assert_int_eq(send(raw, head, sizeof(head), MSG_NOSIGNAL), sizeof(head));
    if (len)
        ck_assert_int_eq(send(raw, rest, len, MSG_NOSIGNAL), (ssize_t)len);
}

START_TEST(stops_reading)
{
    struct rs_header h = {.type = RS_MSG_PING};

    open_pair(false, false);
    a.act = PAUSE;
    send_raw(&h, NULL, 0);
    UNTIL(a.frames == 1);
    send_raw(&h, NULL, 0);
    for (int i = 0; i < 5; i++)
        rs_loop_turn(loop, RS_MS);
    ck_assert_int_eq(a.frames, 1);
    rs_conn_pause(a.c, false);
    UNTIL(a.frames == 2);
    ck_assert_int_eq(a.closes, 0);
    rs_closep(&raw); /* and is told when the peer is gone, paused or not */
    UNTIL(a.closes == 1);
    close_pair();
}
END_TEST

struct bad {
    struct rs_header h;
    const char *why;
};

static const struct bad bads[] = {
    {{.type = 99}, "frame of unknown type 99"},
    {{.type = RS_MSG_PING, .flags = 8}, "PING frame with unknown flags 0x8"},
    {{.type = RS_MSG_PING, .meta_len = (1 << 20) + 1}, "PING frame with 1048577 bytes of metadata"},
    {{.type = RS_MSG_BODY, .body_len = (16 << 20) + 1}, "BODY frame with 16777217 bytes of body"},
    {{.type = RS_MSG_BODY, .body_len = UINT64_MAX}, "BODY frame with 18446744073709551615 bytes"},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD, .fds = 1, .body_len = UINT64_MAX},
     "impossible"},
    {{.type = RS_MSG_BODY, .fds = 5}, "BODY frame with 5 descriptors"},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD}, "BODY frame with 0 descriptors"},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD, .fds = 1},
     "BODY frame without its 1 descriptors"},
    {{.type = RS_MSG_FORK, .fds = 3}, "FORK frame without its 3 descriptors"},
};

START_TEST(refuses_broken_frames)
{
    open_pair(false, false);
    a.act = _i % 2 ? FREE_IN_CLOSE : KEEP;
    send_raw(&bads[_i].h, NULL, 0);
    UNTIL(a.closes == 1);
    ck_assert_msg(strstr(a.why, bads[_i].why) != NULL, "%s", a.why);
    ck_assert_int_eq(a.frames, 0);
    if (a.c) { /* it takes what it is given, and does nothing */
        rs_conn_send(a.c, RS_MSG_PING, 0, 0, NULL, 0, NULL, 0);
        rs_conn_send_fd(a.c, RS_MSG_BODY, 0, 0, NULL, 0, memfd_create("x", MFD_CLOEXEC), 0);
        rs_conn_pause(a.c, true);
        rs_loop_turn(loop, 0);
    }
    close_pair();
}
END_TEST

START_TEST(refuses_a_short_memfd)
{
    int fd = memfd_create("short", MFD_CLOEXEC);

    open_pair(false, true);
    ck_assert_int_eq(write(fd, "123", 3), 3);
    rs_conn_send_fd(a.c, RS_MSG_BODY, 0, 2, NULL, 0, fd, 4);
    UNTIL(b.closes == 1);
    ck_assert_str_eq(b.why, "BODY frame whose memfd is shorter than its body");
    close_pair();
}
END_TEST

START_TEST(fails_outside_of_calls)
{
    json_t *j = json_object();
    char *text = malloc((16 << 20) + 1);
    int fd = memfd_create("short", MFD_CLOEXEC);

    open_pair(true, true);
    a.act = b.act = FREE_IN_CLOSE;
    a.inside = b.inside = true;
    memset(text, 'x', 16 << 20);
    text[16 << 20] = '\0';
    json_object_set_new(j, "text", json_string(text));
    rs_conn_send_json(a.c, RS_MSG_STATS, 0, j);
    ck_assert_int_eq(write(fd, "123", 3), 3);
    rs_conn_send_fd(b.c, RS_MSG_BODY, 0, 2, NULL, 0, fd, 4); /* over TCP it has to be read */
    a.inside = b.inside = false;
    UNTIL(a.closes && b.closes);
    ck_assert_ptr_nonnull(strstr(a.why, "STATS message of 16777"));
    ck_assert_str_eq(b.why, "a memfd became shorter than its body");
    json_decref(j);
    free(text);
    close_pair();
}
END_TEST

START_TEST(may_be_freed_in_callbacks)
{
    open_pair(false, true);
    b.act = FREE_IN_FRAME;
    rs_conn_send(a.c, RS_MSG_PING, 0, 1, NULL, 0, NULL, 0);
    rs_conn_send(a.c, RS_MSG_PING, 0, 2, NULL, 0, NULL, 0);
    UNTIL(b.frames == 1);
    a.act = FREE_IN_CLOSE; /* the peer is gone */
    UNTIL(a.closes == 1);
    ck_assert_int_eq(b.frames, 1);
    ck_assert_int_eq(b.closes, 0);
    close_pair();
}
END_TEST

START_TEST(takes_frames_in_pieces)
{
    static const char body[] = "a body that is cut at every byte";
    struct rs_header h = {
        .type = RS_MSG_BODY, .stream = 9, .meta_len = 5, .body_len = sizeof(body)};
    uint8_t bytes[RS_FRAME_HEADER + 5 + sizeof(body)];

    open_pair(false, false);
    rs_header_encode(&h, bytes);
    memcpy(bytes + RS_FRAME_HEADER, "meta!", 5);
    memcpy(bytes + RS_FRAME_HEADER + 5, body, sizeof(body));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        ck_assert_int_eq(a.frames, 0);
        ck_assert_int_eq(send(raw, bytes + i, 1, MSG_NOSIGNAL), 1);
        rs_loop_turn(loop, 0);
    }
    UNTIL(a.frames == 1);
    ck_assert_str_eq(rs_buf_text(&a.body), body);
    ck_assert_str_eq(rs_buf_text(&a.meta), "meta!");
    send(raw, bytes, 30, MSG_NOSIGNAL); /* the peer goes in the middle of the next one */
    rs_closep(&raw);
    UNTIL(a.closes == 1);
    ck_assert_str_eq(a.why, "the peer closed the connection");
    close_pair();
}
END_TEST

START_TEST(takes_a_bad_descriptor)
{
    struct rs_conn *c = NULL;
    struct rs_error err = {0};
    int fd = memfd_create("no socket", MFD_CLOEXEC);

    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
    ck_assert_int_eq(rs_conn_new(&c, loop, fd, &ops, &a, &err), -1);
    ck_assert_ptr_null(c);
    ck_assert_int_eq(fcntl(fd, F_GETFD), -1); /* closed: it was taken */
    rs_loop_free(loop);
    rs_conn_free(NULL);
}
END_TEST

RS_CHECK_MAIN("conn", tcase_add_loop_test(tc, carries_bodies, 0, RS_COUNT(sizes));
              tcase_add_test(tc, keeps_order); tcase_add_test(tc, passes_descriptors);
              tcase_add_loop_test(tc, carries_long_messages, 0, RS_COUNT(longs));
              tcase_add_loop_test(tc, tells_when_it_is_congested, 0, 2);
              tcase_add_test(tc, stops_reading);
              tcase_add_loop_test(tc, refuses_broken_frames, 0, RS_COUNT(bads));
              tcase_add_test(tc, refuses_a_short_memfd); tcase_add_test(tc, fails_outside_of_calls);
              tcase_add_test(tc, may_be_freed_in_callbacks);
              tcase_add_test(tc, takes_frames_in_pieces);
              tcase_add_test(tc, takes_a_bad_descriptor);)
