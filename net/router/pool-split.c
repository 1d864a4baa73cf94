/* Two versions of a deployment: which requests go to the new one, and what becomes of them. */
#include "core/base/clock.h"
#include "net/router/pool-internal.h"

#include <stdlib.h>

void rs_pool_split(struct rs_pool *p, const struct rs_split *split, struct rs_tallies *tallies)
{
    const struct rs_split *s = &p->queue.split;

    if (p->tallies != tallies)
        free(p->tallies);
    p->tallies = tallies;
    if (s->on == split->on && s->share == split->share && s->version == split->version &&
        s->salt == split->salt)
        return;
    rs_queue_split(&p->queue, split);
    rs_pool_pump(p);
}

/* Its session, or else its request id; without either, one after the other draws. */
void rs_pool_draw(struct rs_pool *p, struct rs_request *r)
{
    const struct rs_split *s = &p->queue.split;
    struct rs_fields f;

    if (r->waiter.wish.session) {
        r->waiter.draw = rs_split_draw(s, &r->waiter.wish.session, sizeof(uint64_t));
        return;
    }
    if (rs_fields_parse(rs_buf_head(&r->meta), rs_buf_len(&r->meta), &f, NULL) == 0 &&
        f.at[RS_TAG_REQUEST_ID].len) {
        const struct rs_field *id = &f.at[RS_TAG_REQUEST_ID];

        r->waiter.draw = rs_split_draw(s, id->data, id->len);
        return;
    }
    p->draws++;
    r->waiter.draw = rs_split_draw(s, &p->draws, sizeof(p->draws));
}

/* The version had no part in it. */
static bool is_no_verdict(const struct rs_failure *f)
{
    return f->stopped || f->code == RS_WIRE_CANCELLED || f->code == RS_WIRE_BACKPRESSURE;
}

/* Requests that die with a replica are one death, which is counted as such: they are no independent
 * failures. One that its client gave up tells how long it takes at least, one that had no time left that
 * it takes too long. */
void rs_pool_tally(struct rs_pool *p, const struct rs_backend *b, const struct rs_request *r,
                   enum rs_unbind how, const struct rs_failure *f)
{
    int64_t now = rs_loop_now(p->loop);
    bool failed = how == RS_UNBIND_FAILED, late = r->deadline && now >= r->deadline;

    if (failed && (f->code == RS_WIRE_DIED || is_no_verdict(f)))
        return;
    if (failed || how == RS_UNBIND_DONE || late)
        rs_tallies_count(p->tallies, b->slots.fresh, failed || late || r->told_error);
    if (r->kind != RS_REQUEST_WEBSOCKET)
        rs_tallies_time(p->tallies, b->slots.fresh, now - r->sent_at);
}
