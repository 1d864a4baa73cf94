#include "net/router/objects.h"

#include "core/base/alloc.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct rs_objects o;
static const char orphan[] = "orphan";

static void begin(uint64_t bytes, size_t fds)
{
    rs_objects_init(&o, bytes, fds, orphan, sizeof(orphan));
}

static struct rs_object_id id_of(unsigned n)
{
    struct rs_object_id id = {0};

    memcpy(id.bytes, &n, sizeof(n));
    id.bytes[15] = 1;
    return id;
}

static struct rs_object *open_one(unsigned n)
{
    struct rs_object_id id = id_of(n);

    return rs_objects_open(&o, &id);
}

static struct rs_object *find_one(unsigned n)
{
    struct rs_object_id id = id_of(n);

    return rs_objects_find(&o, &id);
}

static struct rs_object_body text(const char *data)
{
    return (struct rs_object_body){
        .meta = "m", .meta_len = 1, .data = data, .len = strlen(data), .fd = -1};
}

/* --- by hand ----------------------------------------------------------------------------------- */

START_TEST(lives_as_long_as_it_is_referred_to)
{
    struct rs_object_refs p = {0};
    struct rs_object_id id = id_of(1);
    struct rs_object_body b = text("value");
    struct rs_object *x;

    begin(100, 4);
    x = open_one(1);
    rs_objects_grant(&p, x);
    ck_assert_int_eq(rs_objects_put(&o, x, &b), 0);
    ck_assert_int_eq(x->state, RS_OBJECT_VALUE);
    ck_assert_mem_eq(x->data, "value", 5);
    ck_assert_uint_eq(o.bytes, 5);
    ck_assert_int_eq(rs_objects_put(&o, x, &b), RS_OBJECTS_DONE); /* once */
    rs_objects_unref(&o, x);
    ck_assert_ptr_eq(find_one(1), x);
    ck_assert(rs_objects_drop(&o, &p, &id));
    ck_assert_ptr_null(find_one(1));
    ck_assert(!rs_objects_drop(&o, &p, &id)); /* no more than it has */
    ck_assert_uint_eq(o.bytes, 0);
    ck_assert_uint_eq(rs_objects_count(&o), 0);
    rs_objects_fini(&o);
}
END_TEST

START_TEST(what_a_value_holds_lives_with_it)
{
    enum { DEEP = 100000 };
    struct rs_object *outer = NULL;

    begin(100, 4);
    for (unsigned i = 0; i < DEEP; i++) { /* each names the one before */
        struct rs_object *x = open_one(i);
        struct rs_object_id inner = id_of(i - 1);
        struct rs_object_body b = {.fd = -1, .ids = &inner, .n_ids = i > 0};

        ck_assert_int_eq(rs_objects_put(&o, x, &b), 0);
        if (outer)
            rs_objects_unref(&o, outer);
        outer = x;
    }
    ck_assert_uint_eq(rs_objects_count(&o), DEEP);
    rs_objects_unref(&o, outer);
    ck_assert_uint_eq(rs_objects_count(&o), 0);
    rs_objects_fini(&o);
}
END_TEST

START_TEST(a_full_store_refuses)
{
    struct rs_object_body b = text("1234567"), c = text("12345"), file = {.fd = -1};
    struct rs_object *x, *y;

    begin(10, 1);
    x = open_one(1);
    y = open_one(2);
    ck_assert_int_eq(rs_objects_put(&o, x, &b), 0);
    ck_assert_uint_eq(o.bytes, 7);
    ck_assert_uint_eq(o.meta_bytes, 1);
    ck_assert_int_eq(rs_objects_put(&o, y, &c), RS_OBJECTS_FULL);
    ck_assert_int_eq(y->state, RS_OBJECT_PENDING);
    ck_assert_int_eq(rs_objects_fail(&o, y, &c), 0); /* an error has room, its body may not */
    ck_assert_uint_eq(y->len, 0);
    ck_assert_mem_eq(y->meta, "m", 1);
    rs_objects_unref(&o, x);
    rs_objects_unref(&o, y);
    /* So is what describes values. */
    x = open_one(1);
    c.len = 0;
    c.meta = "0123456789";
    c.meta_len = 11;
    ck_assert_int_eq(rs_objects_put(&o, x, &c), RS_OBJECTS_FULL);
    c.meta_len = 10;
    ck_assert_int_eq(rs_objects_put(&o, x, &c), 0);
    rs_objects_unref(&o, x);
    ck_assert_uint_eq(o.meta_bytes, 0);
    /* Descriptors are counted, and closed also when they are refused. */
    x = open_one(1);
    y = open_one(2);
    file.fd = memfd_create("a", MFD_CLOEXEC);
    ck_assert_int_eq(rs_objects_put(&o, x, &file), 0);
    file.fd = memfd_create("b", MFD_CLOEXEC);
    ck_assert_int_eq(rs_objects_put(&o, y, &file), RS_OBJECTS_FULL);
    ck_assert_int_eq(fcntl(file.fd, F_GETFD), -1);
    rs_objects_unref(&o, x);
    ck_assert_uint_eq(o.fds, 0);
    rs_objects_unref(&o, y);
    rs_objects_fini(&o);
}
END_TEST

static int fired;

static void count(struct rs_object_watch *w)
{
    (void)w;
    fired++;
}

START_TEST(watches)
{
    struct rs_object_body b = text("v");
    struct rs_object *x[3];
    struct rs_object_watch all, two, careful, late;

    begin(100, 4);
    fired = 0;
    for (unsigned i = 0; i < 3; i++)
        x[i] = open_one(i);
    ck_assert(rs_objects_watch(&all, x, 3, 3, false, count));
    ck_assert(rs_objects_watch(&two, x, 3, 2, false, count));
    ck_assert(rs_objects_watch(&careful, x, 3, 3, true, count));
    ck_assert_int_eq(rs_objects_put(&o, x[0], &b), 0);
    ck_assert_int_eq(fired, 0);
    ck_assert_int_eq(rs_objects_fail(&o, x[1], &b), 0);
    ck_assert_int_eq(fired, 2);
    ck_assert(two.fired && careful.fired && !all.fired);
    ck_assert(!rs_objects_watch(&late, x, 3, 3, true, count)); /* one is an error already */
    ck_assert_int_eq(rs_objects_put(&o, x[2], &b), 0);
    ck_assert_int_eq(fired, 3);
    for (unsigned i = 0; i < 3; i++)
        rs_objects_unref(&o, x[i]);
    ck_assert_uint_eq(rs_objects_count(&o), 3); /* the watches still read them */
    rs_objects_unwatch(&o, &all);
    rs_objects_unwatch(&o, &two);
    rs_objects_unwatch(&o, &careful);
    rs_objects_unwatch(&o, &late);
    ck_assert_uint_eq(rs_objects_count(&o), 0);
    rs_objects_fini(&o);
}
END_TEST

START_TEST(the_maker_goes_away)
{
    struct rs_object_refs p = {0}, q = {0};
    struct rs_object_id id = id_of(1);
    struct rs_object *x;

    for (int by_drop = 0; by_drop < 2; by_drop++) {
        begin(100, 4);
        x = open_one(1);
        x->maker = &p;
        rs_objects_grant(&p, x);
        rs_objects_grant(&q, x);
        rs_objects_unref(&o, x);
        if (by_drop)
            ck_assert(rs_objects_drop(&o, &p, &id));
        else
            rs_objects_drop_all(&o, &p);
        ck_assert_int_eq(x->state, RS_OBJECT_ERROR);
        ck_assert_str_eq(x->meta, orphan);
        rs_objects_drop_all(&o, &q);
        ck_assert_uint_eq(rs_objects_count(&o), 0);
        rs_objects_fini(&o);
    }
}
END_TEST

START_TEST(unwanted)
{
    struct rs_object_refs p = {0};
    struct rs_object_id id = id_of(1);
    struct rs_object *x;
    struct rs_object_watch w;
    int call;

    begin(100, 4);
    x = open_one(1); /* the maker's */
    x->maker = &call;
    rs_objects_grant(&p, x);
    ck_assert(rs_objects_watch(&w, &x, 1, 1, true, count));
    ck_assert(!rs_object_unwanted(x, 1)); /* the process may ask for it */
    ck_assert(rs_objects_drop(&o, &p, &id));
    ck_assert(rs_object_unwanted(x, 1));
    rs_objects_unwatch(&o, &w);
    rs_objects_unref(&o, x);
    rs_objects_fini(&o);
}
END_TEST

/* --- random events against a plain model ------------------------------------------------------- */

enum { IDS = 12, PROCESSES = 3, HOLDS = 6, WATCHES = 6, STEPS = 20000 };

static struct {
    bool alive;
    enum rs_object_state state;
    unsigned refs, len;
    unsigned inner[3], n_inner;
} model[IDS];
static struct rs_object_refs process[PROCESSES];
static unsigned held_by[PROCESSES][IDS];
static int hold[HOLDS]; /* id + 1 */
static struct watching {
    struct rs_object_watch w;
    unsigned ids[3], n, need;
    bool used, fail_fast, told;
} watching[WATCHES];
static unsigned seed;

static unsigned dice(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 10) % n;
}

static void model_unref(unsigned n)
{
    ck_assert_uint_gt(model[n].refs, 0);
    if (--model[n].refs)
        return;
    model[n].alive = false;
    for (unsigned i = 0; i < model[n].n_inner; i++)
        model_unref(model[n].inner[i]);
}

static void model_open(unsigned n)
{
    if (!model[n].alive) {
        memset(&model[n], 0, sizeof(model[n]));
        model[n].alive = true;
    }
    model[n].refs++;
}

static void told(struct rs_object_watch *w)
{
    struct watching *t = rs_container_of(w, struct watching, w);

    ck_assert(t->used && !t->told);
    t->told = true;
}

static bool is_due(const struct watching *t)
{
    unsigned ready = 0;
    bool failed = false;

    for (unsigned i = 0; i < t->n; i++) {
        ready += model[t->ids[i]].state != RS_OBJECT_PENDING;
        failed |= model[t->ids[i]].state == RS_OBJECT_ERROR;
    }
    return ready >= t->need || (t->fail_fast && failed);
}

static void settle(unsigned n)
{
    struct rs_object_id ids[3];
    struct rs_object_body b = {
        .meta = "m", .meta_len = 1, .data = "0123456789", .fd = -1, .ids = ids};
    bool error = dice(3) == 0, was_pending = model[n].state == RS_OBJECT_PENDING;
    unsigned inner[3];
    int r;

    b.len = dice(10);
    b.n_ids = dice(4);
    if (b.len > 6)
        b.fd = memfd_create("body", MFD_CLOEXEC);
    for (size_t i = 0; i < b.n_ids; i++) { /* only older ones: no circles */
        inner[i] = n ? dice(n) : 0;
        ids[i] = id_of(inner[i]);
    }
    if (n == 0)
        b.n_ids = 0;
    r = error ? rs_objects_fail(&o, find_one(n), &b) : rs_objects_put(&o, find_one(n), &b);
    ck_assert_int_eq(r == RS_OBJECTS_DONE, !was_pending);
    if (r)
        return;
    model[n].state = error ? RS_OBJECT_ERROR : RS_OBJECT_VALUE;
    model[n].len = (unsigned)find_one(n)->len;
    for (size_t i = 0; i < b.n_ids && find_one(n)->n_inner; i++) {
        if (!model[inner[i]].alive)
            continue;
        model[inner[i]].refs++;
        model[n].inner[model[n].n_inner++] = inner[i];
    }
}

static void start_watch(struct watching *t)
{
    struct rs_object *objects[3];

    *t = (struct watching){.fail_fast = dice(2), .n = 1 + dice(3)};
    for (unsigned i = 0; i < t->n; i++) {
        t->ids[i] = dice(IDS);
        if (!model[t->ids[i]].alive)
            return;
        objects[i] = find_one(t->ids[i]);
    }
    t->need = dice(t->n + 1);
    t->used = true;
    for (unsigned i = 0; i < t->n; i++)
        model[t->ids[i]].refs++;
    t->told = !rs_objects_watch(&t->w, objects, t->n, t->need, t->fail_fast, told);
}

static void end_watch(struct watching *t)
{
    rs_objects_unwatch(&o, &t->w);
    t->used = false;
    for (unsigned i = 0; i < t->n; i++)
        model_unref(t->ids[i]);
}

static void end_process(unsigned p)
{
    rs_objects_drop_all(&o, &process[p]);
    for (unsigned n = 0; n < IDS; n++) {
        for (; held_by[p][n]; held_by[p][n]--)
            model_unref(n);
    }
}

static void step(void)
{
    unsigned n = dice(IDS), p = dice(PROCESSES), k = dice(HOLDS);
    struct rs_object_id id = id_of(n);

    switch (dice(9)) {
    case 0: /* a request opens it */
        if (!hold[k]) {
            open_one(n);
            model_open(n);
            hold[k] = (int)n + 1;
        }
        break;
    case 1: /* and ends */
        if (hold[k]) {
            rs_objects_unref(&o, find_one((unsigned)hold[k] - 1));
            model_unref((unsigned)hold[k] - 1);
            hold[k] = 0;
        }
        break;
    case 2:
    case 3:
        if (model[n].alive) {
            rs_objects_grant(&process[p], find_one(n));
            model[n].refs++;
            held_by[p][n]++;
        }
        break;
    case 4:
        ck_assert_int_eq(rs_objects_drop(&o, &process[p], &id), held_by[p][n] > 0);
        if (held_by[p][n]) {
            held_by[p][n]--;
            model_unref(n);
        }
        break;
    case 5:
        if (dice(20) == 0)
            end_process(p);
        break;
    case 6:
        if (model[n].alive)
            settle(n);
        break;
    case 7:
        if (!watching[k].used)
            start_watch(&watching[k]);
        break;
    default:
        if (watching[k].used)
            end_watch(&watching[k]);
        break;
    }
}

static void compare(void)
{
    uint64_t bytes = 0, meta_bytes = 0;
    size_t alive = 0, fds = 0;

    for (unsigned n = 0; n < IDS; n++) {
        const struct rs_object *x = find_one(n);

        ck_assert_int_eq(x != NULL, model[n].alive);
        if (!x)
            continue;
        alive++;
        ck_assert_uint_eq(x->refs, model[n].refs);
        ck_assert_int_eq(x->state, model[n].state);
        bytes += model[n].state == RS_OBJECT_PENDING ? 0 : model[n].len;
        meta_bytes += x->meta_len;
        fds += x->fd >= 0;
    }
    ck_assert_uint_eq(rs_objects_count(&o), alive);
    ck_assert_uint_eq(o.bytes, bytes);
    ck_assert_uint_eq(o.fds, fds);
    ck_assert_uint_eq(o.meta_bytes, meta_bytes);
    ck_assert_uint_le(o.bytes, o.max_bytes);
    ck_assert_uint_le(o.fds, o.max_fds);
    for (size_t i = 0; i < WATCHES; i++) {
        if (watching[i].used)
            ck_assert_int_eq(watching[i].told, is_due(&watching[i]));
    }
}

START_TEST(counts_are_exact)
{
    seed = (unsigned)_i * 7919u + 1;
    begin(40, 3);
    for (int i = 0; i < STEPS; i++) {
        step();
        compare();
    }
    for (unsigned p = 0; p < PROCESSES; p++)
        end_process(p);
    for (size_t i = 0; i < WATCHES; i++) {
        if (watching[i].used)
            end_watch(&watching[i]);
    }
    for (size_t i = 0; i < HOLDS; i++) {
        if (hold[i])
            rs_objects_unref(&o, find_one((unsigned)hold[i] - 1));
    }
    ck_assert_uint_eq(rs_objects_count(&o), 0);
    ck_assert_uint_eq(o.bytes, 0);
    ck_assert_uint_eq(o.fds, 0);
    rs_objects_fini(&o);
}
END_TEST

RS_CHECK_MAIN("objects", tcase_add_test(tc, lives_as_long_as_it_is_referred_to);
              tcase_add_test(tc, what_a_value_holds_lives_with_it);
              tcase_add_test(tc, a_full_store_refuses); tcase_add_test(tc, watches);
              tcase_add_test(tc, the_maker_goes_away); tcase_add_test(tc, unwanted);
              tcase_add_loop_test(tc, counts_are_exact, 0, 8);)
