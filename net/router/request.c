/* The two faces of a request: what origins and backends do with it. */
#include "net/router/request.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/model/policy.h"
#include "net/router/backend.h"
#include "net/router/choose.h"
#include "net/router/pool-internal.h"
#include "net/router/relay.h"
#include "net/router/stage.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

void rs_request_reset(struct rs_request *r, const struct rs_reply_ops *reply)
{
    struct rs_buf meta = r->meta, body = r->body;

    rs_buf_clear(&meta);
    rs_buf_clear(&body);
    *r = (struct rs_request){
        .reply = reply, .meta = meta, .body = body, .body_fd = -1, .priority = RS_PRIORITY_DEFAULT};
    rs_list_init(&r->waiter.link);
    rs_list_init(&r->link);
}

void rs_request_hold(struct rs_request *r, struct rs_lane_memory *m, uint64_t n)
{
    if (!n || !m || (r->memory && r->memory != m))
        return;
    r->memory = m;
    r->held += n;
    rs_memory_add(m, (enum rs_held)r->held_as, (int64_t)n);
}

void rs_request_hold_as(struct rs_request *r, enum rs_held what)
{
    if (r->memory && r->held_as != what) {
        rs_memory_add(r->memory, (enum rs_held)r->held_as, -(int64_t)r->held);
        rs_memory_add(r->memory, what, (int64_t)r->held);
    }
    r->held_as = (uint8_t)what;
}

void rs_request_let_go(struct rs_request *r)
{
    if (r->memory)
        rs_memory_add(r->memory, (enum rs_held)r->held_as, -(int64_t)r->held);
    r->memory = NULL;
    r->held = 0;
}

void rs_request_fini(struct rs_request *r)
{
    assert(!r->backend && !r->relay && !r->passage);
    rs_request_let_go(r);
    rs_buf_fini(&r->meta);
    rs_buf_fini(&r->body);
    rs_closep(&r->body_fd);
}

void rs_request_stamp(struct rs_request *r, int64_t now)
{
    int64_t left = (r->deadline - now + RS_MS - 1) / RS_MS;
    uint32_t ms;

    if (!r->deadline)
        return;
    ms = left < 1 ? 1 : left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
    if (!r->timeout_at) {
        if (rs_buf_len(&r->meta) + 5 + sizeof(ms) > RS_FRAME_META_MAX)
            return; /* a caller filled it to the brim: it is cancelled in time all the same */
        rs_field_put_uint(&r->meta, RS_TAG_TIMEOUT_MS, ms);
        r->timeout_at = rs_buf_len(&r->meta) - sizeof(ms);
        return;
    }
    for (size_t i = 0; i < sizeof(ms); i++)
        rs_buf_head(&r->meta)[r->timeout_at + i] = (char)(ms >> (8 * i));
}

void rs_request_drop_body(struct rs_request *r)
{
    r->kept = false;
    rs_request_let_go(r);
    rs_closep(&r->body_fd);
    rs_buf_fini(&r->body);
}

void rs_request_take_meta(struct rs_request *r, const char *meta, size_t len)
{
    struct rs_fields fields;

    rs_buf_append(&r->meta, meta, len);
    if (rs_fields_parse(meta, len, &fields, NULL) < 0)
        return; /* it was looked at before */
    r->objects = rs_fields_has(&fields, RS_TAG_OBJECTS);
    r->timeout_at = rs_fields_has(&fields, RS_TAG_TIMEOUT_MS)
                        ? (size_t)(fields.at[RS_TAG_TIMEOUT_MS].data - meta)
                        : 0;
    r->route_len = fields.at[RS_TAG_ROUTE].len;
    r->route_at = r->route_len ? (size_t)(fields.at[RS_TAG_ROUTE].data - meta) : 0;
}

void rs_request_put_priority(struct rs_request *r)
{
    if (rs_buf_len(&r->meta) + 6 <= RS_FRAME_META_MAX)
        rs_field_put_uint(&r->meta, RS_TAG_PRIORITY, r->priority);
}

/* --- origins ----------------------------------------------------------------------------------- */

/* A copy that can grow, in place of a memfd that its maker has sealed. */
static int unseal(struct rs_request *r)
{
    int fd = memfd_create("rserve-body", MFD_CLOEXEC);
    off_t at = 0;

    while (fd >= 0 && (uint64_t)at < r->body_len) {
        ssize_t n = sendfile(fd, r->body_fd, &at, (size_t)(r->body_len - (uint64_t)at));

        if (n == 0 || (n < 0 && errno != EINTR))
            rs_closep(&fd);
    }
    if (fd < 0)
        return -1;
    rs_closep(&r->body_fd);
    r->body_fd = fd;
    return 0;
}

/* At the end of its own memfd. */
static void write_on(struct rs_request *r, const char *data, uint64_t left)
{
    while (left) {
        ssize_t n = pwrite(r->body_fd, data, (size_t)left, (off_t)r->body_len);

        if (n < 0 && (errno == EINTR || (errno == EPERM && unseal(r) == 0)))
            continue;
        if (n <= 0)
            return; /* out of memory for memfds: the length tells */
        data += n;
        left -= (uint64_t)n;
        r->body_len += (uint64_t)n;
    }
}

/* A further memfd behind its own. */
static void copy_on(struct rs_request *r, const struct rs_chunk *body)
{
    char piece[16 << 10];

    for (uint64_t at = 0; at < body->len;) {
        uint64_t left = body->len - at;
        ssize_t n =
            pread(body->fd, piece, left < sizeof(piece) ? (size_t)left : sizeof(piece), (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        write_on(r, piece, (uint64_t)n);
        at += (uint64_t)n;
    }
}

/* It still waits: what comes is kept with what is there. */
static void keep(struct rs_request *r, struct rs_chunk *body)
{

    if (r->body_fd < 0 && body->fd >= 0 && rs_buf_len(&r->body) == 0) {
        r->body_fd = rs_steal_fd(&body->fd);
        r->body_len = body->len;
        return;
    }
    if (r->body_fd >= 0 && body->fd >= 0) {
        copy_on(r, body);
    } else if (r->body_fd >= 0) {
        write_on(r, body->data, body->len);
    } else if (body->fd >= 0) {
        char *to = rs_buf_reserve(&r->body, (size_t)body->len);

        if (rs_file_read(body->fd, to, (size_t)body->len, 0) == 0)
            rs_buf_commit(&r->body, (size_t)body->len);
    } else {
        rs_buf_append(&r->body, body->data, (size_t)body->len);
    }
}

void rs_request_feed(struct rs_request *r, struct rs_chunk *body, bool end)
{
    assert(!r->body_end);
    if (!r->relay && !r->pool && !r->passage)
        return; /* it ended */
    r->body_end = end;
    if (r->passage) {
        rs_stage_feed(r, body, end);
        return;
    }
    if (r->relay) {
        rs_relay_feed(r, body, end);
    } else if (r->backend) {
        r->backend->ops->feed(r->backend, r, body, end);
    } else if (body->len) {
        rs_request_hold(r, r->pool->memory, body->len);
        keep(r, body);
    }
}

void rs_request_window(struct rs_request *r, uint64_t n)
{
    if (r->relay)
        rs_relay_window(r, n);
    else if (r->backend)
        r->backend->ops->window(r->backend, r, n);
    else if (r->passage)
        rs_stage_window(r, n);
}

void rs_request_dispatch(struct rs_request *r, const char *meta, size_t meta_len,
                         struct rs_chunk *body)
{
    r->kind = RS_REQUEST_CALL;
    if (r->relay) {
        rs_relay_dispatch(r, meta, meta_len, body);
        return;
    }
    if (!r->backend || r->wants != RS_WANTS_SLOT)
        return; /* it ended meanwhile */
    rs_buf_clear(&r->meta);
    rs_request_take_meta(r, meta, meta_len);
    rs_buf_clear(&r->body);
    if (body->fd >= 0) {
        r->body_fd = rs_steal_fd(&body->fd);
        r->body_len = body->len;
    } else if (body->len) {
        rs_buf_append(&r->body, body->data, (size_t)body->len);
    }
    rs_pool_dispatch(r->pool, r);
}

/* True: its work may go on for a while. */
static bool abandon(struct rs_request *r)
{
    struct rs_backend *b = r->backend;

    if (r->wants == RS_WANTS_SLOT)
        return false;
    if (b->ops->abandon && !b->gone)
        return b->ops->abandon(b, r);
    b->ops->cancel(b, r);
    return false;
}

void rs_request_cancel(struct rs_request *r)
{
    struct rs_pool *p = r->pool;

    if (r->relay) {
        rs_relay_cancel(r);
        return;
    }
    if (!p) {
        if (r->passage)
            rs_stage_cancel(r);
        return;
    }
    r->pool = NULL;
    if (r->backend) {
        rs_pool_unbind(p, r, abandon(r) ? RS_UNBIND_ABANDONED : RS_UNBIND_CANCELLED, NULL);
        rs_pool_pump(p);
    } else {
        if (rs_queue_cancel(&p->queue, &r->waiter, rs_loop_now(p->loop)))
            rs_pool_count_drop(p, RS_DROP_EXPIRED);
        rs_chooser_drop(p->chooser, r, NULL);
        rs_pool_show_queued(p);
    }
}

/* --- backends ---------------------------------------------------------------------------------- */

void rs_request_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                       bool end)
{
    struct rs_pool *p = r->pool;

    r->retry.answered = true;
    r->told_error = a->status >= 500;
    if (end) {
        r->pool = NULL;
        rs_pool_unbind(p, r, RS_UNBIND_DONE, NULL);
    } else {
        rs_pool_count_piece(r, true);
    }
    r->reply->answer(r, a, body, end);
    if (end)
        rs_pool_pump(p);
}

void rs_request_data(struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_pool *p = r->pool;

    if (end) {
        r->pool = NULL;
        rs_pool_unbind(p, r, RS_UNBIND_DONE, NULL);
    } else {
        rs_pool_count_piece(r, false);
    }
    r->reply->data(r, body, end);
    if (end)
        rs_pool_pump(p);
}

void rs_request_fail(struct rs_request *r, const struct rs_failure *f)
{
    struct rs_pool *p = r->pool;

    r->pool = NULL;
    rs_pool_unbind(p, r, RS_UNBIND_FAILED, f);
    r->reply->fail(r, f);
    rs_pool_pump(p);
}

void rs_request_taken(struct rs_request *r, uint64_t n)
{
    if (n)
        r->reply->taken(r, n);
}

void rs_request_return(struct rs_request *r)
{
    struct rs_pool *p = r->pool;

    rs_pool_unbind(p, r, RS_UNBIND_RETURNED, NULL);
    rs_queue_return(&p->queue, &r->waiter, rs_loop_now(p->loop));
    if (p->chooser)
        rs_chooser_add(p->chooser, r);
    rs_pool_show_queued(p);
    rs_pool_pump(p);
}
