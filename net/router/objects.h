/* The objects of a node, as a pure table: values under ids, who refers to them, who waits for them.
 *
 * An object is pending until it is put or failed, once; from then on it does not change. It lives as
 * long as somebody refers to it: a process (struct rs_object_refs), another object whose body names
 * it, a request, its maker; those that name each other in a circle keep each other. A watch is told
 * once, when enough of its objects are ready.
 *
 * Thread:    whoever holds the lock of the table (store.h). What is ready does not change: who has
 *            a reference may read it without the lock.
 * Ownership: the table owns objects, bodies and descriptors. Watches are the caller's.
 * Units:     bytes of bodies.
 */
#pragma once

#include "core/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RS_OBJECT_ID = 16 };

struct rs_object_id {
    uint8_t bytes[RS_OBJECT_ID];
};

enum rs_object_state { RS_OBJECT_PENDING, RS_OBJECT_VALUE, RS_OBJECT_ERROR };

struct rs_object {
    struct rs_object_id id;
    enum rs_object_state state;
    /* Fields: CONTENT_TYPE and OBJECTS of a value, those of the ERROR frame of an error. */
    char *meta;
    size_t meta_len;
    char *data; /* the body, or NULL with fd */
    uint64_t len;
    int fd; /* memfd that holds it from offset 0; -1: none */
    /* Who makes it and where that lives, while it is pending; the table compares only. */
    const void *maker;
    void *maker_at;
    /* --- the table's own --- */
    size_t refs;
    struct rs_object **inner; /* what its body refers to */
    size_t n_inner;
    struct rs_list watches;
    struct rs_object *next_free;
};

/* What a value or an error is made of. */
struct rs_object_body {
    const void *meta; /* copied */
    size_t meta_len;
    const char *data; /* copied unless there is a descriptor */
    uint64_t len;
    int fd;                         /* taken, also when it is refused; -1: none */
    const struct rs_object_id *ids; /* the objects that it refers to; those unknown are left out */
    size_t n_ids;
};

struct rs_object_slot {
    struct rs_object *object;
    size_t count;
};

/* Open addressing by id. */
struct rs_object_map {
    struct rs_object_slot *at;
    size_t size, used; /* size: a power of two */
};

/* The references of one process. {0} is none. */
struct rs_object_refs {
    struct rs_object_map map;
};

struct rs_objects {
    struct rs_object_map map;
    uint64_t bytes, max_bytes; /* of bodies */
    uint64_t meta_bytes; /* of what describes them; as many again, and errors always have room */
    size_t fds, max_fds;
    /* The fields and no body that an object gets when its maker goes away. */
    const void *orphan_meta;
    size_t orphan_meta_len;
};

struct rs_object_watch_link {
    struct rs_list link;
    struct rs_object *object;
    struct rs_object_watch *watch;
};

struct rs_object_watch {
    struct rs_object_watch_link *links;
    size_t n, left; /* objects; how many must still get ready */
    bool fail_fast; /* one error is enough */
    bool fired;
    void (*fn)(struct rs_object_watch *w); /* once; must not call back into the table */
};

/* The metas are borrowed for the table's life. */
void rs_objects_init(struct rs_objects *o, uint64_t max_bytes, size_t max_fds,
                     const void *orphan_meta, size_t orphan_meta_len);
void rs_objects_fini(struct rs_objects *o); /* whatever still refers to them; no watches are left */
static inline size_t rs_objects_count(const struct rs_objects *o)
{
    return o->map.used;
}

struct rs_object *rs_objects_find(const struct rs_objects *o, const struct rs_object_id *id);
/* Found, or new and pending; one more reference to it, which is the caller's. */
struct rs_object *rs_objects_open(struct rs_objects *o, const struct rs_object_id *id);
void rs_object_ref(struct rs_object *x);
void rs_objects_unref(struct rs_objects *o, struct rs_object *x);

enum { RS_OBJECTS_FULL = 1, RS_OBJECTS_DONE };

/* The value of a pending object, whose watches are told. RS_OBJECTS_FULL: no room, it stays pending.
 * RS_OBJECTS_DONE: it was ready before and stays what it was. The caller has a reference. */
int rs_objects_put(struct rs_objects *o, struct rs_object *x, const struct rs_object_body *body);
/* The same for an error; there is room for its text always. The body of one that is too large is
 * left out. */
int rs_objects_fail(struct rs_objects *o, struct rs_object *x, const struct rs_object_body *body);

/* One more reference of a process, and one less: false if it had none. A pending object that the
 * process should have made fails with its last one. */
void rs_objects_grant(struct rs_object_refs *refs, struct rs_object *x);
bool rs_objects_drop(struct rs_objects *o, struct rs_object_refs *refs,
                     const struct rs_object_id *id);
/* The process is gone. */
void rs_objects_drop_all(struct rs_objects *o, struct rs_object_refs *refs);

/* Waits until `need` of the objects are ready, or with `fail_fast` one is an error. False: that is so
 * already, and w->fn is not called. It refers to them until rs_objects_unwatch. */
bool rs_objects_watch(struct rs_object_watch *w, struct rs_object *const *objects, size_t n,
                      size_t need, bool fail_fast, void (*fn)(struct rs_object_watch *w));
void rs_objects_unwatch(struct rs_objects *o, struct rs_object_watch *w);
/* Nobody but its maker and `mine` further references wants it. */
static inline bool rs_object_unwanted(const struct rs_object *x, size_t mine)
{
    return x->state == RS_OBJECT_PENDING && x->maker && x->refs <= mine + 1;
}
