/* Steps with a cache: the key, who works on it, who waits. */
#include "core/base/file.h"
#include "core/graph/flow-internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A body in a memfd is read, not kept. */
static bool hash_body(struct rs_hash *h, const struct rs_value *v)
{
    char piece[16 << 10];
    uint64_t at = 0;

    if (v->fd < 0) {
        rs_hash_put_field(h, rs_buf_head(&v->body), (size_t)v->len);
        return true;
    }
    rs_hash_put(h, &v->len, sizeof(v->len));
    while (at < v->len) {
        size_t want = v->len - at < sizeof(piece) ? (size_t)(v->len - at) : sizeof(piece);

        if (rs_file_read(v->fd, piece, want, at) < 0)
            return false;
        rs_hash_put(h, piece, want);
        at += want;
    }
    return true;
}

static void hash_header(struct rs_hash *h, const struct rs_flow_info *i, const char *name)
{
    const char *at = i->headers, *end = at + i->headers_len;

    while (at < end) {
        size_t n = strlen(at) + 1;
        const char *value = at + n;

        if (value >= end)
            break;
        if (strcmp(at, name) == 0)
            rs_hash_put_field(h, value, strlen(value));
        at = value + strlen(value) + 1;
    }
    rs_hash_put_field(h, "", 0);
}

static bool key_of(const struct rs_task *t, struct rs_hash_sum *ret)
{
    const struct rs_step *s = t->step;
    const struct rs_flow_info *i = t->run->info;
    const char *type = rs_value_header(t->input, "content-type");
    struct rs_hash h;

    rs_hash_init(&h, &t->run->flow->key);
    rs_hash_put(&h, &s->index, sizeof(s->index));
    /* A call that asks for the same whatever the client's request line is. */
    if (s->kind != RS_STEP_CALL || !s->path || !(s->method || t->input->status))
        rs_hash_put_field(&h, i->target, i->target_len);
    rs_hash_put_field(&h, type, type ? strlen(type) : 0);
    for (unsigned k = 0; k < s->cache.n_headers; k++)
        hash_header(&h, i, s->cache.headers[k]);
    if (!hash_body(&h, t->input))
        return false;
    *ret = rs_hash_end(&h);
    return true;
}

static struct rs_cache *cache_of(const struct rs_task *t)
{
    return &t->run->flow->caches[t->step->cache.index];
}

static void observe(const struct rs_task *t, enum rs_flow_event what)
{
    t->run->flow->observe(t->step, what, RS_OUTCOME_OK, 0, t->run->flow->arg);
}

bool rs_task_from_cache(struct rs_task *t, int64_t now)
{
    struct rs_hash_sum key;
    struct rs_cache_entry *e;

    if (!key_of(t, &key))
        return false; /* it cannot be read; who looks into it says so */
    e = rs_cache_at(cache_of(t), key, now);
    if (e->value) {
        observe(t, RS_FLOW_HIT);
        rs_task_end(t, RS_OUTCOME_OK, rs_value_ref(e->value));
        return true;
    }
    t->entry = e;
    if (!e->leader) {
        observe(t, RS_FLOW_MISS);
        e->leader = t;
        return false;
    }
    observe(t, RS_FLOW_SHARED);
    t->state = RS_TASK_WAITING;
    rs_list_push_back(&e->waiting, &t->share);
    return true;
}

void rs_task_leave_cache(struct rs_task *t)
{
    struct rs_cache_entry *e = t->entry;
    struct rs_list *it;
    struct rs_task *heir;

    if (!e)
        return;
    t->entry = NULL;
    rs_list_remove(&t->share);
    if (e->leader != t)
        return;
    it = rs_list_pop_front(&e->waiting);
    if (!it) {
        rs_cache_drop(cache_of(t), e);
        return;
    }
    heir = rs_container_of(it, struct rs_task, share);
    assert(heir->state == RS_TASK_WAITING);
    e->leader = heir;
    heir->state = RS_TASK_WORKING; /* it starts over: rs_flow_pump */
    rs_list_push_back(&t->run->flow->todo, &heir->todo);
}

void rs_task_to_cache(struct rs_task *t, int64_t now)
{
    struct rs_cache_entry *e = t->entry;
    struct rs_list *it;

    if (!e)
        return;
    if (e->leader != t || t->outcome == RS_OUTCOME_TIMEOUT) {
        rs_task_leave_cache(t);
        return;
    }
    t->entry = NULL;
    while ((it = rs_list_pop_front(&e->waiting))) {
        struct rs_task *other = rs_container_of(it, struct rs_task, share);

        other->entry = NULL;
        rs_task_end(other, t->outcome, rs_value_ref(t->output));
    }
    if (t->outcome == RS_OUTCOME_OK && t->output->status >= 200 && t->output->status < 300 &&
        (t->output->fd < 0 || rs_value_own(t->output, true) == 0)) /* the stage has the other one */
        rs_cache_keep(cache_of(t), e, t->output, now + t->step->cache.ttl);
    else
        rs_cache_drop(cache_of(t), e);
}

double rs_flow_lot(const char *text, size_t len, const char *salt)
{
    static const struct rs_hash_key fixed = {{UINT64_C(0x7273657276650001), 2}};
    struct rs_hash h;

    rs_hash_init(&h, &fixed);
    rs_hash_put_field(&h, salt, strlen(salt));
    rs_hash_put_field(&h, text, len);
    return (double)(rs_hash_end(&h).h[0] >> 11) / 9007199254740992.0;
}
