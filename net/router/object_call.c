/* Objects on a channel: requests for them, references to them, calls that wait for them or make them.
 *
 * A call that makes an object is its maker (objects.h) and holds a reference until it ends; the object
 * becomes ready exactly once, whatever ends the call. A process that promised an object by HOLD, when
 * the answer was on its way already, is the maker itself, known by its references.
 */
#include "core/base/alloc.h"
#include "core/base/file.h"
#include "net/router/call-internal.h"
#include "net/router/dataplane-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum {
    IDS_MAX = RS_FRAME_META_MAX / RS_OBJECT_ID,
    ALONG = 16 << 10, /* bytes of values that go along with a request */
    ROOM = 512,       /* for what the node itself adds to metadata */
};

static struct rs_store *store_of(const struct rs_channel *ch)
{
    return rs_dataplane_store(ch->lane->dataplane);
}

static struct rs_call_objects *objects_of(struct rs_call *call)
{
    if (!call->objects) {
        call->objects = rs_alloc(sizeof(*call->objects));
        call->objects->kept_fd = -1;
    }
    return call->objects;
}

void rs_call_objects_free(struct rs_call *call)
{
    struct rs_call_objects *o = call->objects;

    if (!o)
        return;
    rs_store_unwatch(o->watch);
    rs_store_release(o->hold);
    rs_store_close(store_of(call->ch), o->into);
    free(o->ids);
    free(o->app);
    free(o->deployment);
    rs_buf_fini(&o->meta);
    rs_buf_fini(&o->kept);
    rs_closep(&o->kept_fd);
    free(o);
    call->objects = NULL;
}

static int one_id(const struct rs_fields *fields, enum rs_tag tag, const struct rs_object_id **ret,
                  struct rs_error *err)
{
    size_t n;

    if (rs_store_ids(&fields->at[tag], 1, ret, &n, err) < 0)
        return -1;
    if (n != 1)
        return rs_error_set(err, RS_INVALID, "no object where one of %d bytes was wanted",
                            RS_OBJECT_ID);
    return 0;
}

/* --- bodies ------------------------------------------------------------------------------------ */

/* What receivers may map: of a size that stays. */
static int sealed_memfd(const char *data, size_t len)
{
    int fd = memfd_create("rserve-object", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && rs_file_write(fd, data, len, 0) < 0)
        rs_closep(&fd);
    if (fd >= 0)
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    return fd;
}

/* A body as the store keeps it: takes the chunk's descriptor; long inline ones get one. */
static struct rs_object_body body_of(const void *meta, size_t meta_len, struct rs_chunk *c)
{
    struct rs_object_body b = {.meta = meta, .meta_len = meta_len, .fd = -1};

    if (!c)
        return b;
    b.data = c->data;
    b.len = c->len;
    if (c->fd >= 0)
        b.fd = rs_steal_fd(&c->fd);
    else if (c->len > RS_FRAME_MEMFD_MIN)
        b.fd = sealed_memfd(c->data, (size_t)c->len);
    return b;
}

static void fail_full(struct rs_store *s, struct rs_object *x, const char *why)
{
    rs_auto(rs_buf_fini) struct rs_buf meta = {0};
    struct rs_object_body b = {.fd = -1};
    char full[200];

    rs_call_error_fields(&(struct rs_failure){.code = RS_WIRE_TOO_LARGE, .message = why},
                         "ObjectStoreFullError", &meta);
    b.meta = rs_buf_head(&meta);
    b.meta_len = rs_buf_len(&meta);
    (void)rs_store_put(s, x, true, &b, full);
}

static void put_value(struct rs_call *call, const void *meta, size_t meta_len,
                      struct rs_chunk *body)
{
    struct rs_object_body b = body_of(meta, meta_len, body);
    struct rs_store *s = store_of(call->ch);
    char full[200];

    if (rs_store_put(s, call->objects->into, false, &b, full) == RS_OBJECTS_FULL)
        fail_full(s, call->objects->into, full);
}

/* --- answers that are kept --------------------------------------------------------------------- */

/* Short ones stay in memory; longer ones go to a memfd piece by piece. */
static int append(struct rs_call_objects *o, const struct rs_chunk *c)
{
    char *to;

    if (c->fd >= 0) { /* of a sender that mixes the two */
        to = rs_buf_reserve(&o->kept, (size_t)c->len);
        if (rs_file_read(c->fd, to, (size_t)c->len, 0) < 0)
            return -1;
        rs_buf_commit(&o->kept, (size_t)c->len);
    } else {
        rs_buf_append(&o->kept, c->data, (size_t)c->len);
    }
    o->kept_len += c->len;
    if (o->kept_fd < 0 && rs_buf_len(&o->kept) <= RS_FRAME_MEMFD_MIN)
        return 0;
    if (o->kept_fd < 0)
        o->kept_fd = memfd_create("rserve-object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (rs_file_write(o->kept_fd, rs_buf_head(&o->kept), rs_buf_len(&o->kept),
                      o->kept_len - rs_buf_len(&o->kept)) < 0)
        return -1;
    rs_buf_clear(&o->kept);
    return 0;
}

static void put_pieces(struct rs_call *call)
{
    struct rs_call_objects *o = call->objects;
    struct rs_chunk all = {rs_buf_head(&o->kept), o->kept_len, o->kept_fd};

    if (o->kept_fd >= 0)
        (void)fcntl(o->kept_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    o->kept_fd = -1;
    put_value(call, rs_buf_head(&o->meta), rs_buf_len(&o->meta), &all);
}

/* The answer does not become a value: it is stopped where it comes from. */
static void give_up(struct rs_call *call, enum rs_wire_error code, const char *type,
                    const char *message, bool end)
{
    if (!end)
        rs_request_cancel(&call->r);
    rs_call_end(call, &(struct rs_failure){.code = code, .message = message}, type);
}

void rs_call_keep(struct rs_call *call, const void *meta, size_t meta_len, struct rs_chunk *body,
                  bool end)
{
    struct rs_call_objects *o = call->objects;
    bool first = !call->begun;
    struct rs_store_figures f;
    char text[160];

    call->begun = true;
    if (first && end && !rs_store_field(meta, meta_len, RS_TAG_ITEMS).data) {
        put_value(call, meta, meta_len, body);
        rs_call_free(call);
        return;
    }
    if (rs_store_field(meta, meta_len, RS_TAG_ITEMS).data) {
        give_up(call, RS_WIRE_PROTOCOL, "TypeError", "items that come one by one are no object",
                end);
        return;
    }
    if (first)
        rs_buf_append(&o->meta, meta, meta_len);
    f = rs_store_figures(store_of(call->ch));
    if (o->kept_len + body->len > f.max_bytes) {
        snprintf(text, sizeof(text), "the answer has more bytes than the object store's %llu",
                 (unsigned long long)f.max_bytes);
        give_up(call, RS_WIRE_TOO_LARGE, "ObjectStoreFullError", text, end);
        return;
    }
    if (append(o, body) < 0) {
        give_up(call, RS_WIRE_INTERNAL, "RaySystemError", "the answer cannot be kept in memory",
                end);
        return;
    }
    if (!end) {
        rs_request_window(&call->r, body->len);
        return;
    }
    put_pieces(call);
    rs_call_free(call);
}

void rs_call_keep_error(struct rs_call *call, const void *meta, size_t meta_len,
                        struct rs_chunk *body)
{
    struct rs_object_body b = body_of(meta, meta_len, body);
    char full[200];

    (void)rs_store_put(store_of(call->ch), call->objects->into, true, &b, full);
}

/* --- what is sent ------------------------------------------------------------------------------ */

void rs_channel_grant(struct rs_channel *ch, const void *meta, size_t meta_len)
{
    struct rs_field f = rs_store_field(meta, meta_len, RS_TAG_OBJECTS);

    if (!ch->node && f.data && f.len % RS_OBJECT_ID == 0)
        rs_store_grant(store_of(ch), &ch->refs, (const void *)f.data, f.len / RS_OBJECT_ID);
}

/* A ready object, as an answer. The caller has a reference to it. */
static void write_object(struct rs_channel *ch, uint64_t stream, const struct rs_object *x)
{
    struct rs_chunk body = {x->data, x->len, -1};
    enum rs_msg type = x->state == RS_OBJECT_VALUE ? RS_MSG_RESPONSE : RS_MSG_ERROR;

    if (x->fd >= 0) {
        body.fd = fcntl(x->fd, F_DUPFD_CLOEXEC, 3);
        if (body.fd < 0) {
            rs_auto(rs_buf_fini) struct rs_buf meta = {0};
            struct rs_failure f = {.code = RS_WIRE_INTERNAL,
                                   .message = "the node has no descriptor left for an object"};

            rs_call_error_fields(&f, "RaySystemError", &meta);
            rs_channel_write(ch, RS_MSG_ERROR, true, stream, rs_buf_head(&meta), rs_buf_len(&meta),
                             NULL);
            return;
        }
    }
    if (x->state == RS_OBJECT_VALUE)
        rs_channel_grant(ch, x->meta, x->meta_len);
    rs_channel_write(ch, type, true, stream, x->meta, x->meta_len, &body);
}

static void write_failure(struct rs_channel *ch, uint64_t stream, enum rs_wire_error code,
                          const char *type, const char *message)
{
    rs_auto(rs_buf_fini) struct rs_buf meta = {0};

    rs_call_error_fields(&(struct rs_failure){.code = code, .message = message}, type, &meta);
    rs_channel_write(ch, RS_MSG_ERROR, true, stream, rs_buf_head(&meta), rs_buf_len(&meta), NULL);
}

static void id_text(const struct rs_object_id *id, char out[2 * RS_OBJECT_ID + 1])
{
    for (size_t i = 0; i < RS_OBJECT_ID; i++)
        snprintf(out + 2 * i, 3, "%02x", id->bytes[i]);
}

static const char *say_lost(const struct rs_object_id *id, char out[128])
{
    char hex[2 * RS_OBJECT_ID + 1];

    id_text(id, hex);
    snprintf(out, 128, "object %s is not known on this node: it was freed, or is on another node",
             hex);
    return out;
}

/* --- get and wait ------------------------------------------------------------------------------ */

static void answer_get(void *arg)
{
    struct rs_call *call = arg;
    struct rs_object *const *x;

    (void)rs_store_watched(call->objects->watch, &x);
    write_object(call->ch, call->stream, x[0]);
    rs_call_free(call);
}

static void get(struct rs_call *call, const struct rs_object_id *id)
{
    struct rs_call_objects *o = objects_of(call);
    size_t unknown;
    char text[128];
    int r = rs_store_watch(&o->watch, store_of(call->ch),
                           &(struct rs_store_wish){.loop = call->ch->lane->loop,
                                                   .ids = id,
                                                   .n = 1,
                                                   .need = 1,
                                                   .fn = answer_get,
                                                   .arg = call},
                           &unknown);

    if (r < 0) {
        write_failure(call->ch, call->stream, RS_WIRE_NOT_FOUND, "ObjectLostError",
                      say_lost(id, text));
        rs_call_free(call);
    } else if (r == RS_STORE_READY) {
        answer_get(call);
    }
}

static void answer_wait(void *arg)
{
    struct rs_call *call = arg;
    struct rs_call_objects *o = call->objects;
    rs_auto(rs_buf_fini) struct rs_buf ready = {0}, meta = {0};
    bool *is = rs_alloc(o->n_ids + 1);

    rs_store_states(o->watch, is);
    for (size_t i = 0; i < o->n_ids; i++) {
        if (is[i])
            rs_buf_append(&ready, &o->ids[i], sizeof(*o->ids));
    }
    rs_field_put(&meta, RS_TAG_READY, rs_buf_head(&ready), rs_buf_len(&ready));
    rs_channel_write(call->ch, RS_MSG_RESPONSE, true, call->stream, rs_buf_head(&meta),
                     rs_buf_len(&meta), NULL);
    free(is);
    rs_call_free(call);
}

bool rs_call_wait_over(struct rs_call *call)
{
    if (!call->objects || !call->objects->ids)
        return false;
    answer_wait(call);
    return true;
}

static void wait_for(struct rs_call *call, const struct rs_object_id *ids, size_t n, size_t need)
{
    struct rs_call_objects *o = objects_of(call);
    size_t unknown;

    o->ids = rs_memdup(ids, n * sizeof(*ids));
    o->n_ids = n;
    if (rs_store_watch(&o->watch, store_of(call->ch),
                       &(struct rs_store_wish){.loop = call->ch->lane->loop,
                                               .ids = ids,
                                               .n = n,
                                               .need = need < n ? need : n,
                                               .lenient = true,
                                               .fn = answer_wait,
                                               .arg = call},
                       &unknown) == RS_STORE_READY)
        answer_wait(call);
}

/* --- put --------------------------------------------------------------------------------------- */

/* What an object keeps of the metadata of its PUT. */
static void kept_fields(const struct rs_fields *fields, struct rs_buf *out)
{
    for (unsigned tag = 0; tag < RS_TAG_COUNT; tag++) {
        const struct rs_field *f = &fields->at[tag];

        if (f->data && tag != RS_TAG_KIND && tag != RS_TAG_OBJECT)
            rs_field_put(out, (enum rs_tag)tag, f->data, f->len);
    }
}

static int put(struct rs_channel *ch, struct rs_frame *f, const struct rs_fields *fields,
               const struct rs_object_id *id)
{
    bool error = rs_fields_has(fields, RS_TAG_ERROR_CODE);
    struct rs_store *s = store_of(ch);
    struct rs_object *x = rs_store_open(s, id, &ch->refs, &ch->refs, NULL);
    struct rs_chunk c = {f->body, f->h.body_len, f->body_fd};
    rs_auto(rs_buf_fini) struct rs_buf meta = {0};
    struct rs_object_body b;
    char full[200];

    kept_fields(fields, &meta);
    b = body_of(rs_buf_head(&meta), rs_buf_len(&meta), &c);
    f->body_fd = c.fd;
    if (rs_store_put(s, x, error, &b, full) == RS_OBJECTS_FULL) {
        write_failure(ch, f->h.stream, RS_WIRE_TOO_LARGE, "ObjectStoreFullError", full);
        fail_full(s, x, full);
    } else {
        rs_channel_write(ch, RS_MSG_RESPONSE, true, f->h.stream, NULL, 0, NULL);
    }
    rs_store_close(s, x);
    return 0;
}

int rs_object_request(struct rs_channel *ch, struct rs_frame *f, const struct rs_fields *fields,
                      struct rs_error *err)
{
    uint64_t kind = rs_fields_uint(fields, RS_TAG_KIND, 0);
    const struct rs_object_id *ids;
    size_t n;

    if (ch->node || !(f->h.flags & RS_FRAME_END)) {
        write_failure(ch, f->h.stream, RS_WIRE_PROTOCOL, "RaySystemError",
                      ch->node ? "objects are known on one node only"
                               : "a request for an object must be one frame");
        return 0;
    }
    if (kind == RS_REQUEST_WAIT) {
        if (rs_store_ids(&fields->at[RS_TAG_AWAIT_OBJECTS], IDS_MAX, &ids, &n, err) < 0)
            return -1;
        wait_for(rs_call_new(ch, f, fields), ids, n,
                 (size_t)rs_fields_uint(fields, RS_TAG_NEED, n));
        return 0;
    }
    if (one_id(fields, RS_TAG_OBJECT, &ids, err) < 0)
        return -1;
    if (kind == RS_REQUEST_PUT)
        return put(ch, f, fields, ids);
    get(rs_call_new(ch, f, fields), ids);
    return 0;
}

/* --- calls with objects ------------------------------------------------------------------------ */

static void put_number(struct rs_buf *b, uint64_t n, size_t width)
{
    for (; width; width--, n >>= 8) {
        uint8_t byte = (uint8_t)n;

        rs_buf_append(b, &byte, 1);
    }
}

/* Short values go along with the request, so that the replica need not ask for them. */
static void send_along(struct rs_call *call)
{
    rs_auto(rs_buf_fini) struct rs_buf all = {0};
    struct rs_object *const *x;
    size_t n = rs_store_watched(call->objects->watch, &x);

    for (size_t i = 0; i < n; i++) {
        struct rs_field kind = rs_store_field(x[i]->meta, x[i]->meta_len, RS_TAG_CONTENT_TYPE);

        if (x[i]->fd >= 0 || rs_store_field(x[i]->meta, x[i]->meta_len, RS_TAG_OBJECTS).data ||
            rs_buf_len(&all) + kind.len + x[i]->len > ALONG || kind.len > UINT16_MAX)
            return;
        put_number(&all, kind.len, 2);
        put_number(&all, x[i]->len, 4);
        rs_buf_append(&all, kind.data ? kind.data : "", kind.len);
        rs_buf_append(&all, x[i]->data ? x[i]->data : "", (size_t)x[i]->len);
    }
    if (rs_buf_len(&call->r.meta) + rs_buf_len(&all) < RS_FRAME_META_MAX - ROOM)
        rs_field_put(&call->r.meta, RS_TAG_READY, rs_buf_head(&all), rs_buf_len(&all));
}

/* Its objects are ready, or one is an error. */
static void on_ready(void *arg)
{
    struct rs_call *call = arg;
    struct rs_call_objects *o = call->objects;
    const struct rs_object *failed = rs_store_failed(o->watch);

    if (failed) {
        rs_auto(rs_buf_fini) struct rs_buf meta = {0};
        struct rs_chunk body = {failed->data, failed->len, -1};
        struct rs_failure f = {.code = RS_WIRE_USER, .body = &body};

        /* It says that it is not this call's own. */
        rs_buf_append(&meta, failed->meta, failed->meta_len);
        if (!rs_store_field(failed->meta, failed->meta_len, RS_TAG_AWAIT_OBJECTS).data &&
            failed->meta_len < RS_FRAME_META_MAX - ROOM)
            rs_field_put(&meta, RS_TAG_AWAIT_OBJECTS, &failed->id, sizeof(failed->id));
        f.meta = rs_buf_head(&meta);
        f.meta_len = rs_buf_len(&meta);
        if (failed->fd >= 0)
            body.fd = fcntl(failed->fd, F_DUPFD_CLOEXEC, 3);
        if (failed->fd >= 0 && body.fd < 0)
            body = RS_CHUNK_NONE;
        rs_call_end(call, &f, NULL);
        rs_closep(&body.fd);
        return;
    }
    if (!o->has_values)
        send_along(call);
    rs_store_unwatch(rs_steal(o->watch));
    rs_lane_submit(call->ch->lane, &call->r, o->app, o->deployment);
}

/* Whoever takes it must be able to ask this node for the objects. */
static bool refuses_objects(const struct rs_call *call, const char *app, const char *deployment)
{
    struct rs_lane *l = call->ch->lane;
    const struct rs_route_target *to = rs_route_target(l->routes, app, deployment);

    return to && to->by_value;
}

static void bounce(struct rs_call *call, const struct rs_fields *fields)
{
    struct rs_failure f = {.code = RS_WIRE_PROTOCOL,
                           .message = "the deployment takes values, not objects of this node"};
    rs_auto(rs_buf_fini) struct rs_buf meta = {0};

    rs_call_error_fields(&f, "ByValue", &meta);
    if (fields->at[RS_TAG_OBJECTS].len && fields->at[RS_TAG_OBJECTS].len < RS_FRAME_META_MAX - ROOM)
        rs_field_put(&meta, RS_TAG_OBJECTS, fields->at[RS_TAG_OBJECTS].data,
                     fields->at[RS_TAG_OBJECTS].len);
    rs_channel_grant(call->ch, rs_buf_head(&meta), rs_buf_len(&meta));
    rs_channel_write(call->ch, RS_MSG_ERROR, true, call->stream, rs_buf_head(&meta),
                     rs_buf_len(&meta), NULL);
    rs_call_free(call);
}

static int await(struct rs_call *call, const struct rs_object_id *ids, size_t n, bool has_values,
                 const char *app, const char *deployment)
{
    struct rs_call_objects *o = objects_of(call);
    size_t unknown;
    char text[128];
    int r = rs_store_watch(&o->watch, store_of(call->ch),
                           &(struct rs_store_wish){.loop = call->ch->lane->loop,
                                                   .ids = ids,
                                                   .n = n,
                                                   .need = n,
                                                   .fail_fast = true,
                                                   .fn = on_ready,
                                                   .arg = call},
                           &unknown);

    if (r < 0) {
        rs_call_end(call,
                    &(struct rs_failure){.code = RS_WIRE_NOT_FOUND,
                                         .message = say_lost(&ids[unknown], text)},
                    "ObjectLostError");
        return RS_CALL_TAKEN;
    }
    o->has_values = has_values;
    o->app = rs_strdup(app);
    o->deployment = rs_strdup(deployment);
    if (r == RS_STORE_READY)
        on_ready(call);
    return RS_CALL_TAKEN;
}

int rs_call_begin(struct rs_call *call, const struct rs_fields *fields, const char *app,
                  const char *deployment, struct rs_error *err)
{
    const struct rs_object_id *held = NULL, *awaited = NULL, *into = NULL;
    size_t n_held, n_awaited = 0;
    struct rs_channel *ch = call->ch;

    if (rs_store_ids(&fields->at[RS_TAG_OBJECTS], IDS_MAX, &held, &n_held, err) < 0 ||
        rs_store_ids(&fields->at[RS_TAG_AWAIT_OBJECTS], IDS_MAX, &awaited, &n_awaited, err) < 0 ||
        (rs_fields_has(fields, RS_TAG_RETURN_OBJECT) &&
         one_id(fields, RS_TAG_RETURN_OBJECT, &into, err) < 0))
        return -1;
    if (n_awaited && !call->r.body_end)
        return rs_error_set(err, RS_INVALID, "REQUEST with AWAIT_OBJECTS in more than one frame");
    if (n_awaited && refuses_objects(call, app, deployment)) {
        bounce(call, fields);
        return RS_CALL_TAKEN;
    }
    call->r.objects = n_held > 0;
    objects_of(call)->hold = rs_store_hold(store_of(ch), held, n_held);
    if (into)
        call->objects->into = rs_store_open(store_of(ch), into, &ch->refs, call, ch->lane);
    return n_awaited ? await(call, awaited, n_awaited, rs_fields_has(fields, RS_TAG_READY), app,
                             deployment)
                     : 0;
}

/* --- HOLD and REFS ----------------------------------------------------------------------------- */

/* It asks for objects (get, wait) and makes none: nothing of it would ever be put. */
static bool asks_only(const struct rs_call *call)
{
    const struct rs_call_objects *o = call->objects;

    return o && o->watch && !o->app;
}

int rs_call_hold(struct rs_channel *ch, const struct rs_frame *f, struct rs_error *err)
{
    struct rs_call *call = rs_streams_get(&ch->in, f->h.stream);
    rs_auto(rs_buf_fini) struct rs_buf meta = {0};
    const struct rs_object_id *id;
    struct rs_fields fields;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0 ||
        one_id(&fields, RS_TAG_OBJECT, &id, err) < 0)
        return -1;
    if (!call || call->begun || asks_only(call) || (call->objects && call->objects->into)) {
        /* The answer is on its way: the process itself will put it. */
        rs_store_close(store_of(ch), rs_store_open(store_of(ch), id, &ch->refs, &ch->refs, NULL));
        return 0;
    }
    objects_of(call)->into = rs_store_open(store_of(ch), id, &ch->refs, call, ch->lane);
    rs_field_put(&meta, RS_TAG_OBJECT, id, sizeof(*id));
    rs_channel_write(ch, RS_MSG_RESPONSE, true, f->h.stream, rs_buf_head(&meta), rs_buf_len(&meta),
                     NULL);
    return 0;
}

int rs_channel_refs(struct rs_channel *ch, const struct rs_frame *f, struct rs_error *err)
{
    const struct rs_object_id *ids;
    struct rs_fields fields;
    size_t n;

    if (rs_fields_parse(f->meta, f->h.meta_len, &fields, err) < 0)
        return -1;
    if (rs_fields_has(&fields, RS_TAG_ADD)) {
        if (rs_store_ids(&fields.at[RS_TAG_ADD], IDS_MAX, &ids, &n, err) < 0)
            return -1;
        rs_store_grant(store_of(ch), &ch->refs, ids, n);
    }
    if (rs_fields_has(&fields, RS_TAG_DROP)) {
        if (rs_store_ids(&fields.at[RS_TAG_DROP], IDS_MAX, &ids, &n, err) < 0)
            return -1;
        rs_store_drop(store_of(ch), &ch->refs, ids, n);
    }
    return 0;
}

/* --- cancelling what was only waited for ------------------------------------------------------- */

struct stop {
    struct rs_lane *lane;
    struct rs_object_id id;
};

/* On the lane of the call that makes it, which may have ended: then nobody is its maker there. */
static void on_stop(void *arg)
{
    struct stop *s = arg;
    const void *maker = rs_store_maker(rs_dataplane_store(s->lane->dataplane), &s->id, s->lane);

    if (maker)
        rs_call_cancel((struct rs_call *)(uintptr_t)maker, false);
    free(s);
}

static void stop_maker(const struct rs_object_id *id, void *at)
{
    struct stop s = {.lane = at, .id = *id};

    rs_loop_post(s.lane->loop, on_stop, rs_memdup(&s, sizeof(s)));
}

void rs_call_cancel_awaited(struct rs_call *call)
{
    const struct rs_call_objects *o = call->objects;

    if (o && o->watch && o->app)
        rs_store_unwanted(o->watch, o->hold, stop_maker);
}
