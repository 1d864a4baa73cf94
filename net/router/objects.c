#include "net/router/objects.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <assert.h>
#include <string.h>

/* --- a map by id ------------------------------------------------------------------------------- */

static size_t slot_of(const struct rs_object_map *m, const struct rs_object_id *id)
{
    uint64_t a, b;

    memcpy(&a, id->bytes, sizeof(a));
    memcpy(&b, id->bytes + sizeof(a), sizeof(b));
    return (size_t)(((a ^ b) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (m->size - 1);
}

static struct rs_object_slot *find(const struct rs_object_map *m, const struct rs_object_id *id)
{
    if (!m->used)
        return NULL;
    for (size_t i = slot_of(m, id); m->at[i].object; i = (i + 1) & (m->size - 1)) {
        if (memcmp(&m->at[i].object->id, id, sizeof(*id)) == 0)
            return &m->at[i];
    }
    return NULL;
}

static void insert(struct rs_object_map *m, struct rs_object *x, size_t count)
{
    size_t i = slot_of(m, &x->id);

    while (m->at[i].object)
        i = (i + 1) & (m->size - 1);
    m->at[i] = (struct rs_object_slot){x, count};
}

static void put(struct rs_object_map *m, struct rs_object *x, size_t count)
{
    if (2 * (m->used + 1) > m->size) {
        struct rs_object_map bigger = {.size = m->size ? 2 * m->size : 16, .used = m->used};

        bigger.at = rs_alloc(bigger.size * sizeof(*bigger.at));
        for (size_t i = 0; i < m->size; i++) {
            if (m->at[i].object)
                insert(&bigger, m->at[i].object, m->at[i].count);
        }
        free(m->at);
        *m = bigger;
    }
    insert(m, x, count);
    m->used++;
}

/* Closes the gap, so that searches need no tombstones. */
static void take(struct rs_object_map *m, struct rs_object_slot *s)
{
    size_t hole = (size_t)(s - m->at);

    assert(m->at && s);
    for (size_t i = (hole + 1) & (m->size - 1); m->at[i].object; i = (i + 1) & (m->size - 1)) {
        size_t home = slot_of(m, &m->at[i].object->id);

        if (((i - home) & (m->size - 1)) >= ((i - hole) & (m->size - 1))) {
            m->at[hole] = m->at[i];
            hole = i;
        }
    }
    m->at[hole] = (struct rs_object_slot){0};
    m->used--;
    if (m->used == 0) {
        free(m->at);
        *m = (struct rs_object_map){0};
    }
}

/* --- objects ----------------------------------------------------------------------------------- */

void rs_objects_init(struct rs_objects *o, uint64_t max_bytes, size_t max_fds,
                     const void *orphan_meta, size_t orphan_meta_len)
{
    *o = (struct rs_objects){.max_bytes = max_bytes,
                             .max_fds = max_fds,
                             .orphan_meta = orphan_meta,
                             .orphan_meta_len = orphan_meta_len};
}

static void destroy(struct rs_object *x)
{
    assert(rs_list_empty(&x->watches));
    free(x->meta);
    free(x->data);
    rs_closep(&x->fd);
    free(x->inner);
    free(x);
}

void rs_objects_fini(struct rs_objects *o)
{
    for (size_t i = 0; i < o->map.size; i++) {
        if (o->map.at[i].object)
            destroy(o->map.at[i].object);
    }
    free(o->map.at);
    *o = (struct rs_objects){0};
}

struct rs_object *rs_objects_find(const struct rs_objects *o, const struct rs_object_id *id)
{
    const struct rs_object_slot *s = find(&o->map, id);

    return s ? s->object : NULL;
}

struct rs_object *rs_objects_open(struct rs_objects *o, const struct rs_object_id *id)
{
    struct rs_object *x = rs_objects_find(o, id);

    if (!x) {
        x = rs_alloc(sizeof(*x));
        x->id = *id;
        x->fd = -1;
        rs_list_init(&x->watches);
        put(&o->map, x, 0);
    }
    x->refs++;
    return x;
}

void rs_object_ref(struct rs_object *x)
{
    x->refs++;
}

/* Objects may refer to objects to any depth: those that are to go are in a list, not on the stack. */
void rs_objects_unref(struct rs_objects *o, struct rs_object *x)
{
    struct rs_object *gone = NULL;

    assert(x->refs);
    if (--x->refs == 0)
        gone = x;
    while (gone) {
        x = gone;
        gone = x->next_free;
        for (size_t i = 0; i < x->n_inner; i++) {
            struct rs_object *y = x->inner[i];

            if (--y->refs == 0) {
                y->next_free = gone;
                gone = y;
            }
        }
        take(&o->map, find(&o->map, &x->id));
        if (x->state != RS_OBJECT_PENDING) {
            o->bytes -= x->len;
            o->meta_bytes -= x->meta_len;
        }
        if (x->fd >= 0)
            o->fds--;
        destroy(x);
    }
}

/* --- becoming ready ---------------------------------------------------------------------------- */

static void unlink_all(struct rs_object_watch *w)
{
    for (size_t i = 0; i < w->n; i++)
        rs_list_remove(&w->links[i].link);
}

static void tell(struct rs_object *x)
{
    while (!rs_list_empty(&x->watches)) {
        struct rs_object_watch_link *l =
            rs_container_of(x->watches.next, struct rs_object_watch_link, link);
        struct rs_object_watch *w = l->watch;

        rs_list_remove(&l->link);
        w->left -= w->left > 0;
        if (w->left && !(w->fail_fast && x->state == RS_OBJECT_ERROR))
            continue;
        unlink_all(w);
        w->fired = true;
        w->fn(w);
    }
}

static void keep_inner(struct rs_objects *o, struct rs_object *x, const struct rs_object_body *body)
{
    if (!body->n_ids)
        return;
    x->inner = rs_alloc(body->n_ids * sizeof(struct rs_object *));
    for (size_t i = 0; i < body->n_ids; i++) {
        struct rs_object *y = rs_objects_find(o, &body->ids[i]);

        if (!y || y == x)
            continue;
        y->refs++;
        x->inner[x->n_inner++] = y;
    }
}

static void become(struct rs_objects *o, struct rs_object *x, enum rs_object_state state,
                   const struct rs_object_body *body)
{
    x->state = state;
    x->maker = NULL;
    x->maker_at = NULL;
    if (body->meta_len)
        x->meta = rs_memdup(body->meta, body->meta_len);
    x->meta_len = body->meta_len;
    x->len = body->len;
    x->fd = body->fd;
    if (body->fd < 0 && body->len)
        x->data = rs_memdup(body->data, (size_t)body->len);
    o->bytes += x->len;
    o->meta_bytes += x->meta_len;
    o->fds += x->fd >= 0;
    keep_inner(o, x, body);
    tell(x);
}

static void close_body(const struct rs_object_body *body)
{
    if (body->fd >= 0)
        close(body->fd);
}

static bool has_room(const struct rs_objects *o, const struct rs_object_body *body)
{
    return body->len <= o->max_bytes && o->bytes <= o->max_bytes - body->len &&
           o->meta_bytes + body->meta_len <= o->max_bytes && (body->fd < 0 || o->fds < o->max_fds);
}

int rs_objects_put(struct rs_objects *o, struct rs_object *x, const struct rs_object_body *body)
{
    assert(x->refs);
    if (x->state != RS_OBJECT_PENDING || !has_room(o, body)) {
        close_body(body);
        return x->state != RS_OBJECT_PENDING ? RS_OBJECTS_DONE : RS_OBJECTS_FULL;
    }
    become(o, x, RS_OBJECT_VALUE, body);
    return 0;
}

int rs_objects_fail(struct rs_objects *o, struct rs_object *x, const struct rs_object_body *body)
{
    struct rs_object_body bare = {.meta = body->meta, .meta_len = body->meta_len, .fd = -1};

    assert(x->refs);
    if (x->state != RS_OBJECT_PENDING) {
        close_body(body);
        return RS_OBJECTS_DONE;
    }
    if (!has_room(o, body)) {
        close_body(body);
        body = &bare;
    }
    become(o, x, RS_OBJECT_ERROR, body);
    return 0;
}

/* --- processes --------------------------------------------------------------------------------- */

void rs_objects_grant(struct rs_object_refs *refs, struct rs_object *x)
{
    struct rs_object_slot *s = find(&refs->map, &x->id);

    x->refs++;
    if (s)
        s->count++;
    else
        put(&refs->map, x, 1);
}

/* It was to come from that process. */
static void orphan(struct rs_objects *o, const struct rs_object_refs *refs, struct rs_object *x)
{
    const struct rs_object_body body = {
        .meta = o->orphan_meta, .meta_len = o->orphan_meta_len, .fd = -1};

    if (x->state == RS_OBJECT_PENDING && x->maker == refs)
        (void)rs_objects_fail(o, x, &body);
}

bool rs_objects_drop(struct rs_objects *o, struct rs_object_refs *refs,
                     const struct rs_object_id *id)
{
    struct rs_object_slot *s = find(&refs->map, id);
    struct rs_object *x;

    if (!s)
        return false;
    x = s->object;
    if (--s->count == 0) {
        take(&refs->map, s);
        orphan(o, refs, x);
    }
    rs_objects_unref(o, x);
    return true;
}

void rs_objects_drop_all(struct rs_objects *o, struct rs_object_refs *refs)
{
    struct rs_object_map all = refs->map;

    refs->map = (struct rs_object_map){0};
    for (size_t i = 0; i < all.size; i++) {
        struct rs_object *x = all.at[i].object;

        if (!x)
            continue;
        orphan(o, refs, x);
        for (size_t n = all.at[i].count; n; n--)
            rs_objects_unref(o, x);
    }
    free(all.at);
}

/* --- waiting ----------------------------------------------------------------------------------- */

bool rs_objects_watch(struct rs_object_watch *w, struct rs_object *const *objects, size_t n,
                      size_t need, bool fail_fast, void (*fn)(struct rs_object_watch *w))
{
    bool failed = false;

    *w = (struct rs_object_watch){.n = n, .left = need, .fail_fast = fail_fast, .fn = fn};
    w->links = rs_alloc((n ? n : 1) * sizeof(*w->links));
    for (size_t i = 0; i < n; i++) {
        struct rs_object_watch_link *l = &w->links[i];

        l->object = objects[i];
        l->watch = w;
        rs_list_init(&l->link);
        rs_object_ref(l->object);
        if (l->object->state == RS_OBJECT_PENDING)
            rs_list_push_back(&l->object->watches, &l->link);
        else if (w->left)
            w->left--;
        failed |= l->object->state == RS_OBJECT_ERROR;
    }
    if (w->left && !(fail_fast && failed))
        return true;
    unlink_all(w);
    w->fired = true;
    return false;
}

void rs_objects_unwatch(struct rs_objects *o, struct rs_object_watch *w)
{
    unlink_all(w);
    for (size_t i = 0; i < w->n; i++)
        rs_objects_unref(o, w->links[i].object);
    free(w->links);
    w->links = NULL;
    w->n = 0;
}
