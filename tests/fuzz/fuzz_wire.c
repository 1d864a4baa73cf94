/* Bytes that a peer sends: headers, metadata fields, and whole frames through a connection. */
#include "core/base/buf.h"
#include "net/wire/conn.h"
#include "net/wire/frame.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was understood must come out as it went in. */
static void header(const uint8_t *data, size_t size)
{
    uint8_t again[RS_FRAME_HEADER];
    struct rs_header h;
    struct rs_error err = {0};

    if (size < RS_FRAME_HEADER)
        return;
    if (rs_header_decode(data, &h, &err) < 0) {
        assert(err.msg[0]);
        return;
    }
    rs_header_encode(&h, again);
    assert(memcmp(again, data, sizeof(again)) == 0);
}

static void fields(const uint8_t *data, size_t size)
{
    struct rs_error err = {0};
    struct rs_buf b = {0};
    struct rs_fields f, again;

    if (rs_fields_parse(data, size, &f, &err) < 0) {
        assert(err.msg[0]);
        return;
    }
    for (unsigned tag = 0; tag < RS_TAG_COUNT; tag++) {
        if (!f.at[tag].data)
            continue;
        free(rs_fields_dup(&f, tag));
        (void)rs_fields_uint(&f, tag, 0);
        rs_field_put(&b, tag, f.at[tag].data, f.at[tag].len);
    }
    assert(rs_fields_parse(rs_buf_text(&b), rs_buf_len(&b), &again, &err) == 0);
    for (unsigned tag = 0; tag < RS_TAG_COUNT; tag++) {
        assert(!f.at[tag].data == !again.at[tag].data);
        assert(f.at[tag].len == again.at[tag].len);
    }
    rs_buf_fini(&b);
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct rs_error err = {0};
    json_t *json;

    if (f->body)
        free(memcpy(malloc(f->h.body_len + 1), f->body, f->h.body_len));
    fields((const uint8_t *)f->meta, f->h.meta_len);
    if (rs_frame_json(f, &json, &err) == 0)
        json_decref(json);
}

static void on_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    assert(why->msg[0]);
    *(volatile bool *)arg = true;
}

static void frames(const uint8_t *data, size_t size)
{
    static const struct rs_conn_ops ops = {.on_frame = on_frame, .on_close = on_close};
    static struct rs_loop *loop;
    rs_auto(rs_conn_freep) struct rs_conn *c = NULL;
    struct rs_error err = {0};
    volatile bool closed = false; /* written by on_close */
    int fds[2];

    if ((!loop && rs_loop_new(&loop, &err) < 0) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
        rs_conn_new(&c, loop, fds[0], &ops, (void *)(uintptr_t)&closed, &err) < 0)
        abort();
    while (size > 0 && !closed) {
        ssize_t n = send(fds[1], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
        if (rs_loop_turn(loop, 0) != 0)
            abort();
    }
    close(fds[1]);
    for (int turns = 0; turns < 1000 && !closed; turns++)
        if (rs_loop_turn(loop, 0) != 0)
            abort();
    assert(closed); /* the hang-up is seen */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    header(data, size);
    fields(data, size);
    frames(data, size);
    return 0;
}
