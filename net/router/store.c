#include "net/router/store.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct rs_store {
    pthread_mutex_t lock;
    struct rs_objects table;
    struct rs_buf orphan; /* the fields of an object whose maker is gone */
    struct rs_series *used, *available, *count;
};

struct rs_store_hold {
    struct rs_store *store;
    size_t n;
    struct rs_object *at[];
};

struct rs_store_watch {
    struct rs_object_watch w;
    struct rs_store *store;
    struct rs_loop *loop;
    void (*fn)(void *arg);
    void *arg;
    struct rs_object **objects; /* as they were named */
    size_t n;
    bool posted; /* the call to fn is under way */
    bool dead;   /* and nobody wants it any more */
};

static struct rs_series *gauge(struct rs_metrics *m, const char *name, const char *help)
{
    struct rs_family_conf conf = {.name = name, .help = help, .kind = RS_GAUGE};

    return rs_family_series(rs_metrics_family(m, &conf), (const char *const[]){NULL});
}

struct rs_store *rs_store_new(uint64_t max_bytes, size_t max_fds, struct rs_metrics *metrics)
{
    struct rs_store *s = rs_alloc(sizeof(*s));

    pthread_mutex_init(&s->lock, NULL);
    rs_field_put_uint(&s->orphan, RS_TAG_ERROR_CODE, RS_WIRE_DIED);
    rs_field_put_str(&s->orphan, RS_TAG_ERROR_TYPE, "OwnerDiedError");
    rs_field_put_str(&s->orphan, RS_TAG_MESSAGE,
                     "the process that was to make the object ended before it did");
    rs_objects_init(&s->table, max_bytes, max_fds, rs_buf_head(&s->orphan), rs_buf_len(&s->orphan));
    s->used = gauge(metrics, "ray_object_store_used_memory",
                    "Bytes of the bodies in this node's object store.");
    s->available = gauge(metrics, "ray_object_store_available_memory",
                         "Bytes for which there is room in this node's object store.");
    s->count = gauge(metrics, "ray_object_store_num_local_objects",
                     "Objects in this node's object store, those not ready yet included.");
    rs_series_set(s->available, (double)max_bytes);
    return s;
}

void rs_store_free(struct rs_store *s)
{
    if (!s)
        return;
    rs_objects_fini(&s->table);
    rs_buf_fini(&s->orphan);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void take_lock(struct rs_store *s)
{
    pthread_mutex_lock(&s->lock);
}

static void give_lock(struct rs_store *s)
{
    const struct rs_objects *t = &s->table;

    rs_series_set(s->used, (double)t->bytes);
    rs_series_set(s->available, t->bytes < t->max_bytes ? (double)(t->max_bytes - t->bytes) : 0);
    rs_series_set(s->count, (double)rs_objects_count(t));
    pthread_mutex_unlock(&s->lock);
}

struct rs_store_figures rs_store_figures(struct rs_store *s)
{
    struct rs_store_figures f;

    pthread_mutex_lock(&s->lock);
    f = (struct rs_store_figures){.objects = rs_objects_count(&s->table),
                                  .fds = s->table.fds,
                                  .bytes = s->table.bytes,
                                  .max_bytes = s->table.max_bytes};
    pthread_mutex_unlock(&s->lock);
    return f;
}

int rs_store_ids(const struct rs_field *f, size_t most, const struct rs_object_id **ret, size_t *n,
                 struct rs_error *err)
{
    if (f->len % RS_OBJECT_ID || f->len / RS_OBJECT_ID > most)
        return rs_error_set(err, RS_INVALID,
                            "a list of objects of %u bytes, wanted at most %zu of %d", f->len, most,
                            RS_OBJECT_ID);
    *ret = (const struct rs_object_id *)(const void *)f->data;
    *n = f->len / RS_OBJECT_ID;
    return 0;
}

struct rs_field rs_store_field(const void *meta, size_t len, enum rs_tag tag)
{
    const uint8_t *p = meta;

    while (len >= 5) {
        uint32_t n =
            (uint32_t)p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24;

        if (n > len - 5)
            break;
        if (p[0] == tag)
            return (struct rs_field){(const char *)p + 5, n};
        p += 5 + n;
        len -= 5 + n;
    }
    return (struct rs_field){0};
}

/* --- objects ----------------------------------------------------------------------------------- */

struct rs_object *rs_store_open(struct rs_store *s, const struct rs_object_id *id,
                                struct rs_object_refs *refs, const void *maker, void *at)
{
    struct rs_object *x;

    take_lock(s);
    x = maker || rs_objects_find(&s->table, id) ? rs_objects_open(&s->table, id) : NULL;
    if (x && maker && x->state == RS_OBJECT_PENDING) {
        x->maker = maker;
        x->maker_at = at;
    }
    if (x && refs)
        rs_objects_grant(refs, x);
    give_lock(s);
    return x;
}

void rs_store_close(struct rs_store *s, struct rs_object *x)
{
    if (!x)
        return;
    take_lock(s);
    rs_objects_unref(&s->table, x);
    give_lock(s);
}

const void *rs_store_maker(struct rs_store *s, const struct rs_object_id *id, const void *at)
{
    const struct rs_object *x;
    const void *maker;

    take_lock(s);
    x = rs_objects_find(&s->table, id);
    maker = x && x->maker_at == at ? x->maker : NULL;
    give_lock(s);
    return maker;
}

static void say_full(const struct rs_objects *t, const struct rs_object_body *body, char full[200])
{
    if (body->fd >= 0 && t->fds >= t->max_fds)
        snprintf(full, 200, "the object store holds %zu large objects, its limit is %zu", t->fds,
                 t->max_fds);
    else
        snprintf(full, 200,
                 "the object store has no room for %llu bytes: %llu of %llu bytes are used by %zu "
                 "objects",
                 (unsigned long long)body->len, (unsigned long long)t->bytes,
                 (unsigned long long)t->max_bytes, rs_objects_count(t));
}

int rs_store_put(struct rs_store *s, struct rs_object *x, bool error, struct rs_object_body *body,
                 char full[200])
{
    struct rs_field ids = rs_store_field(body->meta, body->meta_len, RS_TAG_OBJECTS);
    int r;

    if (ids.data && ids.len % RS_OBJECT_ID == 0) {
        body->ids = (const struct rs_object_id *)(const void *)ids.data;
        body->n_ids = ids.len / RS_OBJECT_ID;
    }
    take_lock(s);
    r = error ? rs_objects_fail(&s->table, x, body) : rs_objects_put(&s->table, x, body);
    if (r == RS_OBJECTS_FULL)
        say_full(&s->table, body, full);
    give_lock(s);
    return r;
}

/* --- references -------------------------------------------------------------------------------- */

void rs_store_grant(struct rs_store *s, struct rs_object_refs *refs, const struct rs_object_id *ids,
                    size_t n)
{
    take_lock(s);
    for (size_t i = 0; i < n; i++) {
        struct rs_object *x = rs_objects_find(&s->table, &ids[i]);

        if (x)
            rs_objects_grant(refs, x);
    }
    give_lock(s);
}

void rs_store_drop(struct rs_store *s, struct rs_object_refs *refs, const struct rs_object_id *ids,
                   size_t n)
{
    take_lock(s);
    for (size_t i = 0; i < n; i++)
        (void)rs_objects_drop(&s->table, refs, &ids[i]);
    give_lock(s);
}

void rs_store_drop_all(struct rs_store *s, struct rs_object_refs *refs)
{
    if (!refs->map.used)
        return;
    take_lock(s);
    rs_objects_drop_all(&s->table, refs);
    give_lock(s);
}

struct rs_store_hold *rs_store_hold(struct rs_store *s, const struct rs_object_id *ids, size_t n)
{
    struct rs_store_hold *h;

    if (!n)
        return NULL;
    h = rs_alloc(sizeof(*h) + n * sizeof(struct rs_object *));
    h->store = s;
    take_lock(s);
    for (size_t i = 0; i < n; i++) {
        struct rs_object *x = rs_objects_find(&s->table, &ids[i]);

        if (!x)
            continue;
        rs_object_ref(x);
        h->at[h->n++] = x;
    }
    give_lock(s);
    if (h->n)
        return h;
    free(h);
    return NULL;
}

bool rs_store_holds(const struct rs_store_hold *h, const struct rs_object *x)
{
    for (size_t i = 0; h && i < h->n; i++) {
        if (h->at[i] == x)
            return true;
    }
    return false;
}

void rs_store_release(struct rs_store_hold *h)
{
    if (!h)
        return;
    take_lock(h->store);
    for (size_t i = 0; i < h->n; i++)
        rs_objects_unref(&h->store->table, h->at[i]);
    give_lock(h->store);
    free(h);
}

/* --- waiting ----------------------------------------------------------------------------------- */

static void free_watch(struct rs_store_watch *w)
{
    free(w->objects);
    free(w);
}

static void on_loop(void *arg)
{
    struct rs_store_watch *w = arg;

    w->posted = false;
    if (w->dead)
        free_watch(w);
    else
        w->fn(w->arg);
}

/* Under the lock, on the thread of whoever made the last object ready. */
static void on_fired(struct rs_object_watch *ow)
{
    struct rs_store_watch *w = rs_container_of(ow, struct rs_store_watch, w);

    w->posted = true;
    rs_loop_post(w->loop, on_loop, w);
}

int rs_store_watch(struct rs_store_watch **ret, struct rs_store *s,
                   const struct rs_store_wish *wish, size_t *unknown)
{
    size_t n = wish->n, need = wish->need, n_known = 0;
    struct rs_store_watch *w = rs_alloc(sizeof(*w));
    struct rs_object **known = rs_alloc((n ? n : 1) * sizeof(struct rs_object *));
    bool waits = false;

    w->store = s;
    w->loop = wish->loop;
    w->fn = wish->fn;
    w->arg = wish->arg;
    w->n = n;
    w->objects = rs_alloc((n ? n : 1) * sizeof(struct rs_object *));
    take_lock(s);
    for (size_t i = 0; i < n; i++) {
        struct rs_object *x = w->objects[i] = rs_objects_find(&s->table, &wish->ids[i]);

        if (x) {
            known[n_known++] = x;
        } else if (wish->lenient) {
            need -= need > 0;
        } else {
            give_lock(s);
            *unknown = i;
            free(known);
            free_watch(w);
            return -1;
        }
    }
    waits = rs_objects_watch(&w->w, known, n_known, need, wish->fail_fast, on_fired);
    give_lock(s);
    free(known);
    *ret = w;
    return waits ? 0 : RS_STORE_READY;
}

size_t rs_store_watched(const struct rs_store_watch *w, struct rs_object *const **ret)
{
    *ret = w->objects;
    return w->n;
}

void rs_store_states(struct rs_store_watch *w, bool *ready)
{
    take_lock(w->store);
    for (size_t i = 0; i < w->n; i++)
        ready[i] = !w->objects[i] || w->objects[i]->state != RS_OBJECT_PENDING;
    give_lock(w->store);
}

struct rs_object *rs_store_failed(struct rs_store_watch *w)
{
    struct rs_object *failed = NULL;

    take_lock(w->store);
    for (size_t i = 0; i < w->n && !failed; i++) {
        if (w->objects[i] && w->objects[i]->state == RS_OBJECT_ERROR)
            failed = w->objects[i];
    }
    give_lock(w->store);
    return failed;
}

void rs_store_unwanted(struct rs_store_watch *w, const struct rs_store_hold *h,
                       void (*fn)(const struct rs_object_id *id, void *at))
{
    for (size_t i = 0; i < w->n; i++) {
        struct rs_object *x = w->objects[i];
        void *at = NULL;

        if (!x)
            continue;
        take_lock(w->store);
        if (x->maker_at && rs_object_unwanted(x, rs_store_holds(h, x) ? 2 : 1))
            at = x->maker_at;
        give_lock(w->store);
        if (at)
            fn(&x->id, at);
    }
}

void rs_store_unwatch(struct rs_store_watch *w)
{
    if (!w)
        return;
    take_lock(w->store);
    rs_objects_unwatch(&w->store->table, &w->w);
    give_lock(w->store);
    if (w->posted)
        w->dead = true;
    else
        free_watch(w);
}
