#include "core/events/ring.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 2000, BYTES = 2 << 20, WINDOW_S = 600, LIMIT = 1000 };

static struct rs_events_entry *entry_of(struct rs_list *in)
{
    return rs_container_of(in, struct rs_events_entry, in);
}

void rs_events_init(struct rs_events *e, const struct rs_events_conf *conf)
{
    *e = (struct rs_events){.next = 1};
    if (conf)
        e->conf = *conf;
    if (!e->conf.max_count)
        e->conf.max_count = COUNT;
    if (!e->conf.max_bytes)
        e->conf.max_bytes = BYTES;
    if (e->conf.window_s <= 0)
        e->conf.window_s = WINDOW_S;
    e->slots = rs_alloc(e->conf.max_count);
    rs_list_init(&e->entries);
}

static void note_clean(struct rs_events *e, struct rs_events_entry *x)
{
    if (x->dirty)
        --*(x->repeat ? &e->again : &e->fresh);
    x->dirty = x->repeat = false;
}

static void drop(struct rs_events *e, struct rs_events_entry *x)
{
    note_clean(e, x);
    e->dropped = x->seq > e->dropped ? x->seq : e->dropped;
    e->slots[x->slot] = 0;
    e->count--;
    e->bytes -= x->bytes;
    rs_list_remove(&x->in);
    json_decref(x->j);
    free(x);
}

void rs_events_fini(struct rs_events *e)
{
    while (e->entries.next && !rs_list_empty(&e->entries))
        drop(e, entry_of(e->entries.next));
    free(e->slots);
    *e = (struct rs_events){0};
}

/* --- one entry ----------------------------------------------------------------------------------- */

/* The end of it, as UTF-8; newlines stay. */
static json_t *text_of(const char *text)
{
    size_t len = strlen(text);
    const char *at = len > RS_EVENTS_TEXT ? text + (len - RS_EVENTS_TEXT) : text, *end = text + len;
    struct rs_buf out = {0};
    json_t *j;

    while (at > text && at < end && ((unsigned char)*at & 0xc0) == 0x80)
        at++; /* not from the middle of a character */
    while (at < end) {
        const char *from = at;

        if (rs_utf8_next(&at, end) < 0)
            rs_buf_puts(&out, "\xef\xbf\xbd");
        else
            rs_buf_append(&out, from, (size_t)(at - from));
    }
    j = json_stringn(rs_buf_text(&out), rs_buf_len(&out));
    rs_buf_fini(&out);
    return j;
}

static void set_text(json_t *j, const char *key, const char *text)
{
    if (text && *text)
        json_object_set_new(j, key, text_of(text));
    else
        json_object_del(j, key);
}

static void set_data(json_t *j, const json_t *data)
{
    rs_auto(rs_freep) char *text = data ? rs_json_dump(data) : NULL;

    if (text && strlen(text) <= RS_EVENTS_DATA)
        json_object_set_new(j, "data", json_deep_copy(data));
    else
        json_object_del(j, "data");
}

static void fill(json_t *j, const struct rs_event *event)
{
    set_text(j, "app", event->app);
    set_text(j, "deployment", event->deployment);
    set_text(j, "replica", event->replica);
    set_text(j, "node", event->node);
    set_text(j, "status", event->status);
    set_text(j, "before", event->before);
    set_text(j, "after", event->after);
    set_text(j, "cause", event->cause);
    set_text(j, "who", event->who);
    set_text(j, "text", event->text);
    set_data(j, event->data);
}

static uint64_t mix(uint64_t h, const char *text, bool numbers)
{
    for (; text && *text && *text != '\n'; text++)
        if (numbers || !isdigit((unsigned char)*text))
            h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

static uint64_t likeness(const struct rs_event *event)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    if (event->single)
        return 0;
    h = mix(h, event->kind, true);
    h = mix(h, event->app, true);
    h = mix(h, event->deployment, true);
    h = mix(h, event->node, true);
    h = mix(h, event->status, true);
    h = mix(h, event->before, true);
    h = mix(h, event->after, true);
    h = mix(h, event->cause, true);
    h = mix(h, event->who, true);
    h = mix(h, event->text, false);
    return h ? h : 1;
}

static void weigh(struct rs_events *e, struct rs_events_entry *x)
{
    rs_auto(rs_freep) char *text = rs_json_dump(x->j);

    e->bytes -= x->bytes;
    x->bytes = strlen(text);
    e->bytes += x->bytes;
}

static void note_dirty(struct rs_events *e, struct rs_events_entry *x, bool repeat)
{
    if (x->dirty)
        return;
    x->dirty = true;
    x->repeat = repeat;
    ++*(repeat ? &e->again : &e->fresh);
}

static void stamp(struct rs_events *e, struct rs_events_entry *x, double wall_s)
{
    x->seq = e->next++;
    x->last_s = wall_s;
    json_object_set_new(x->j, "seq", json_integer((json_int_t)x->seq));
    json_object_set_new(x->j, "last_s", json_real(wall_s));
    rs_list_push_back(&e->entries, &x->in);
}

/* --- the ring ------------------------------------------------------------------------------------ */

static void make_room(struct rs_events *e, size_t count)
{
    while (e->count > 1 && (e->count > count || e->bytes > e->conf.max_bytes))
        drop(e, entry_of(e->entries.next));
}

static unsigned take_slot(struct rs_events *e)
{
    while (e->slots[e->free_slot])
        e->free_slot = (e->free_slot + 1) % (unsigned)e->conf.max_count;
    e->slots[e->free_slot] = 1;
    return e->free_slot;
}

static struct rs_events_entry *find_like(const struct rs_events *e, uint64_t like, double wall_s)
{
    struct rs_list *at = e->entries.prev;

    for (int n = 0; like && n < RS_EVENTS_LOOK_BACK && at != &e->entries; n++, at = at->prev) {
        struct rs_events_entry *x = entry_of(at);

        if (x->last_s < wall_s - e->conf.window_s)
            return NULL;
        if (x->like == like)
            return x;
    }
    return NULL;
}

static void remember_replica(json_t *j, const char *replica)
{
    json_t *list = json_object_get(j, "replicas");
    const char *was = rs_json_str(j, "replica", NULL);

    if (!replica || (was && strcmp(was, replica) == 0))
        return;
    if (!list) {
        list = json_array();
        json_object_set_new(j, "replicas", list);
        if (was)
            json_array_append_new(list, json_string(was));
    }
    if (json_array_size(list) >= RS_EVENTS_REPLICAS)
        json_array_remove(list, 0);
    json_array_append_new(list, text_of(replica));
}

static void again(struct rs_events *e, struct rs_events_entry *x, const struct rs_event *event,
                  double wall_s)
{
    remember_replica(x->j, event->replica);
    fill(x->j, event);
    json_object_set_new(x->j, "count", json_integer(rs_json_int(x->j, "count", 1) + 1));
    stamp(e, x, wall_s);
    weigh(e, x);
    note_dirty(e, x, true);
    make_room(e, e->conf.max_count);
}

void rs_events_add(struct rs_events *e, const struct rs_event *event, double wall_s)
{
    uint64_t like = likeness(event);
    struct rs_events_entry *x = find_like(e, like, wall_s);

    if (x) {
        again(e, x, event, wall_s);
        return;
    }
    make_room(e, e->conf.max_count - 1);
    if (e->count == e->conf.max_count) /* of one */
        drop(e, entry_of(e->entries.next));
    x = rs_alloc(sizeof(*x));
    rs_list_init(&x->in);
    x->slot = take_slot(e);
    x->like = like;
    x->id = e->next;
    x->j = json_pack("{s:I, s:I, s:s, s:f, s:f, s:i}", "id", (json_int_t)x->id, "seq",
                     (json_int_t)x->id, "kind", event->kind, "first_s", wall_s, "last_s", wall_s,
                     "count", 1);
    fill(x->j, event);
    e->count++;
    stamp(e, x, wall_s);
    weigh(e, x);
    note_dirty(e, x, false);
    make_room(e, e->conf.max_count);
}

bool rs_events_restore(struct rs_events *e, json_t *entry, unsigned slot)
{
    rs_auto(rs_json_decrefp) json_t *j = entry;
    int64_t id = rs_json_int(j, "id", 0), seq = rs_json_int(j, "seq", 0);
    struct rs_events_entry *x;

    if (id <= 0 || seq < id || (uint64_t)seq < e->next || slot >= e->conf.max_count ||
        e->slots[slot] || !*rs_json_str(j, "kind", ""))
        return false;
    x = rs_alloc(sizeof(*x));
    rs_list_init(&x->in);
    x->id = (uint64_t)id;
    x->seq = (uint64_t)seq;
    x->last_s = rs_json_num(j, "last_s", 0);
    x->slot = slot;
    e->slots[slot] = 1;
    x->j = rs_steal(j);
    rs_list_push_back(&e->entries, &x->in);
    e->count++;
    e->next = x->seq + 1;
    weigh(e, x);
    make_room(e, e->conf.max_count);
    return true;
}

/* --- questions ----------------------------------------------------------------------------------- */

static bool is_text(const json_t *j, const char *key, const char *text)
{
    return !text || strcmp(rs_json_str(j, key, ""), text) == 0;
}

static bool is_of_replica(const json_t *j, const char *replica)
{
    const json_t *list = json_object_get(j, "replicas"), *one;
    size_t i;

    if (is_text(j, "replica", replica))
        return true;
    json_array_foreach (list, i, one)
        if (json_is_string(one) && strcmp(json_string_value(one), replica) == 0)
            return true;
    return false;
}

static bool passes(const struct rs_events_entry *x, const struct rs_events_ask *ask)
{
    return (!ask->has_after || x->seq > ask->after) && is_text(x->j, "app", ask->app) &&
           is_text(x->j, "deployment", ask->deployment) && is_of_replica(x->j, ask->replica) &&
           is_text(x->j, "kind", ask->kind);
}

bool rs_events_any(const struct rs_events *e, const struct rs_events_ask *ask)
{
    for (struct rs_list *at = e->entries.prev; at != &e->entries; at = at->prev) {
        if (ask->has_after && entry_of(at)->seq <= ask->after)
            return false;
        if (passes(entry_of(at), ask))
            return true;
    }
    return false;
}

json_t *rs_events_list(const struct rs_events *e, const struct rs_events_ask *ask)
{
    size_t limit = ask->limit ? ask->limit : LIMIT, n = 0, skip = 0;
    uint64_t last = rs_events_last(e);
    json_t *list = json_array();
    bool more = false;

    for (struct rs_list *at = e->entries.next; at != &e->entries; at = at->next)
        n += passes(entry_of(at), ask);
    more = n > limit;
    skip = more && !ask->has_after ? n - limit : 0;
    for (struct rs_list *at = e->entries.next; at != &e->entries; at = at->next) {
        const struct rs_events_entry *x = entry_of(at);

        if (!passes(x, ask) || (skip > 0 && skip--))
            continue;
        json_array_append_new(list, json_deep_copy(x->j));
        if (ask->has_after && json_array_size(list) == limit && more) {
            last = x->seq;
            break;
        }
    }
    return json_pack("{s:o, s:I, s:b, s:b}", "events", list, "last", (json_int_t)last, "more",
                     (int)more, "lost", (int)(ask->has_after && ask->after < e->dropped));
}
