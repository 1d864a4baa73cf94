/* The ring of what happened, and that ring on a disk. */
#include "core/events/kept.h"
#include "core/events/ring.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct rs_events ring;

static void teardown(void)
{
    rs_events_fini(&ring);
}

static void small(size_t count, size_t bytes)
{
    const struct rs_events_conf conf = {.max_count = count, .max_bytes = bytes};

    rs_events_init(&ring, &conf);
}

static void add(const char *app, const char *status, const char *text, double at)
{
    rs_events_add(
        &ring, &(struct rs_event){.kind = "app", .app = app, .status = status, .text = text}, at);
}

/* "3:RUNNING*2 4:DEPLOYING": seq, status, count where it is not 1. */
static const char *show(const struct rs_events *e, const struct rs_events_ask *ask)
{
    static char text[4000];
    rs_auto(rs_json_decrefp) json_t *j = rs_events_list(e, ask);
    const json_t *one;
    size_t i, len = 0;

    text[0] = '\0';
    json_array_foreach (json_object_get(j, "events"), i, one) {
        int64_t count = rs_json_int(one, "count", 0);

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%lld:%s", i ? " " : "",
                                (long long)rs_json_int(one, "seq", 0),
                                rs_json_str(one, "status", "-"));
        if (count != 1)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "*%lld", (long long)count);
    }
    if (rs_json_bool(j, "more", false))
        len += (size_t)snprintf(text + len, sizeof(text) - len, " more");
    if (rs_json_bool(j, "lost", false))
        len += (size_t)snprintf(text + len, sizeof(text) - len, " lost");
    snprintf(text + len, sizeof(text) - len, " last=%lld", (long long)rs_json_int(j, "last", -1));
    return text;
}

static const struct rs_events_ask all = {0};

START_TEST(an_event_has_what_was_told)
{
    rs_auto(rs_json_decrefp) json_t *data = json_pack("{s:i}", "free", 3), *j = NULL;
    rs_auto(rs_freep) char *text = NULL;

    rs_events_init(&ring, NULL);
    rs_events_add(&ring,
                  &(struct rs_event){.kind = "scale",
                                     .app = "x",
                                     .deployment = "A",
                                     .status = "UP",
                                     .before = "2",
                                     .after = "4",
                                     .cause = "load",
                                     .who = "autoscaler",
                                     .text = "up",
                                     .node = "",
                                     .data = data},
                  12.5);
    j = rs_events_list(&ring, &all);
    text = rs_json_dump(json_object_get(j, "events"));
    ck_assert_str_eq(
        text, "[{\"id\":1,\"seq\":1,\"kind\":\"scale\",\"first_s\":12.5,\"last_s\":12.5,"
              "\"count\":1,\"app\":\"x\",\"deployment\":\"A\",\"status\":\"UP\",\"before\":\"2\","
              "\"after\":\"4\",\"cause\":\"load\",\"who\":\"autoscaler\",\"text\":\"up\","
              "\"data\":{\"free\":3}}]");
}
END_TEST

START_TEST(repeats_are_counted)
{
    rs_events_init(&ring, NULL);
    add("x", "DEPLOYING", "", 1);
    add("x", "RUNNING", "took 3 s", 2);
    add("x", "DEPLOYING", "", 3);
    add("x", "RUNNING", "took 41 s", 4); /* numbers make no difference */
    add("y", "RUNNING", "took 41 s", 5); /* another application does */
    add("x", "RUNNING", "took long", 6);
    ck_assert_str_eq(show(&ring, &all), "3:DEPLOYING*2 4:RUNNING*2 5:RUNNING 6:RUNNING last=6");
    add("x", "DEPLOYING", "", 602.9);
    ck_assert_str_eq(show(&ring, &all), "4:RUNNING*2 5:RUNNING 6:RUNNING 7:DEPLOYING*3 last=7");
    add("x", "RUNNING", "took 5 s", 605); /* too long ago to be the same */
    ck_assert_str_eq(show(&ring, &all),
                     "4:RUNNING*2 5:RUNNING 6:RUNNING 7:DEPLOYING*3 8:RUNNING last=8");
}
END_TEST

START_TEST(orders_are_never_repeats)
{
    const struct rs_event order = {.kind = "deploy", .status = "APPLY", .single = true};

    rs_events_init(&ring, NULL);
    rs_events_add(&ring, &order, 1);
    rs_events_add(&ring, &order, 1);
    ck_assert_str_eq(show(&ring, &all), "1:APPLY 2:APPLY last=2");
}
END_TEST

START_TEST(repeats_know_their_replicas)
{
    const struct rs_events_ask first = {.replica = "r00"}, last = {.replica = "r19"},
                               some = {.replica = "r12"}, none = {.replica = "r20"};
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    rs_events_init(&ring, NULL);
    for (int i = 0; i < 20; i++) {
        char id[8];

        snprintf(id, sizeof(id), "r%02d", i);
        rs_events_add(
            &ring, &(struct rs_event){.kind = "replica", .app = "x", .replica = id, .status = "S"},
            i);
    }
    j = rs_events_list(&ring, &all);
    ck_assert_str_eq(show(&ring, &all), "20:S*20 last=20");
    ck_assert_uint_eq(json_array_size(json_object_get(
                          json_array_get(json_object_get(j, "events"), 0), "replicas")),
                      RS_EVENTS_REPLICAS);
    ck_assert(rs_events_any(&ring, &last) && rs_events_any(&ring, &some));
    ck_assert(!rs_events_any(&ring, &first) && !rs_events_any(&ring, &none));
}
END_TEST

START_TEST(the_oldest_make_room)
{
    const struct rs_events_ask after1 = {.has_after = true, .after = 1},
                               after2 = {.has_after = true, .after = 2};

    small(3, 0);
    add("a", "A", "", 1);
    add("b", "B", "", 2);
    add("c", "C", "", 3);
    ck_assert_str_eq(show(&ring, &after1), "2:B 3:C last=3");
    add("d", "D", "", 4);
    add("e", "E", "", 5);
    ck_assert_str_eq(show(&ring, &all), "3:C 4:D 5:E last=5");
    ck_assert_str_eq(show(&ring, &after1), "3:C 4:D 5:E lost last=5");
    ck_assert_str_eq(show(&ring, &after2), "3:C 4:D 5:E last=5");
    add("c", "C", "", 6); /* a repeat is young again */
    add("f", "F", "", 7);
    ck_assert_str_eq(show(&ring, &all), "5:E 6:C*2 7:F last=7");
}
END_TEST

START_TEST(bytes_are_bounded)
{
    char text[RS_EVENTS_TEXT + 100];
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    const char *kept;

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    text[sizeof(text) - 2] = '!';
    small(1000, 10000);
    for (int i = 0; i < 100; i++) {
        char app[8];

        snprintf(app, sizeof(app), "a%d", i);
        add(app, "S", text, i);
        ck_assert_uint_le(ring.bytes, 10000);
    }
    j = rs_events_list(&ring, &all);
    ck_assert_uint_eq(json_array_size(json_object_get(j, "events")), 4);
    kept = rs_json_str(json_array_get(json_object_get(j, "events"), 0), "text", "");
    ck_assert_uint_eq(strlen(kept), RS_EVENTS_TEXT);
    ck_assert_int_eq(kept[RS_EVENTS_TEXT - 1], '!'); /* the end stays */
    rs_events_fini(&ring);
    small(10, 100); /* of one too large there is still one */
    add("x", "S", text, 1);
    add("y", "T", text, 1);
    ck_assert_str_eq(show(&ring, &all), "2:T last=2");
}
END_TEST

START_TEST(what_is_no_text_becomes_text)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    rs_events_init(&ring, NULL);
    add("x", "S", "a\xff\xfe b\nc", 1);
    j = rs_events_list(&ring, &all);
    ck_assert_str_eq(rs_json_str(json_array_get(json_object_get(j, "events"), 0), "text", ""),
                     "a\xef\xbf\xbd\xef\xbf\xbd b\nc");
}
END_TEST

START_TEST(pages)
{
    struct rs_events_ask ask = {.has_after = true, .limit = 2};
    const struct rs_events_ask newest = {.limit = 2}, of_x = {.app = "x"},
                               of_a = {.app = "x", .deployment = "A"}, scale = {.kind = "scale"};

    rs_events_init(&ring, NULL);
    add("x", "A", "", 1);
    add("y", "B", "", 2);
    add("x", "C", "", 3);
    add("y", "D", "", 4);
    rs_events_add(&ring,
                  &(struct rs_event){.kind = "scale", .app = "x", .deployment = "A", .status = "E"},
                  5);
    ck_assert_str_eq(show(&ring, &ask), "1:A 2:B more last=2");
    ask.after = 2;
    ck_assert_str_eq(show(&ring, &ask), "3:C 4:D more last=4");
    ask.after = 4;
    ck_assert_str_eq(show(&ring, &ask), "5:E last=5");
    ask.after = 5;
    ck_assert_str_eq(show(&ring, &ask), " last=5");
    ask.after = 99;
    ck_assert_str_eq(show(&ring, &ask), " last=5");
    ck_assert_str_eq(show(&ring, &newest), "4:D 5:E more last=5");
    ck_assert_str_eq(show(&ring, &of_x), "1:A 3:C 5:E last=5");
    ck_assert_str_eq(show(&ring, &of_a), "5:E last=5");
    ck_assert_str_eq(show(&ring, &scale), "5:E last=5");
}
END_TEST

/* --- the disk --- */

static char folder[64], path[96];

static void make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/rserve-events-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/x.db", folder);
}

static void remove_folder(void)
{
    DIR *d = opendir(folder);

    for (struct dirent *e; (e = readdir(d));)
        (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    ck_assert_int_eq(rmdir(folder), 0);
    teardown();
}

static struct rs_records *open_it(void)
{
    struct rs_records *r = NULL;
    char *aside = NULL;
    struct rs_error err = {0};

    ck_assert_msg(rs_records_open(&r, path, &aside, &err) == 0, "%s", err.msg);
    ck_assert_ptr_null(aside);
    return r;
}

static void save(void)
{
    rs_auto(rs_records_freep) struct rs_records *r = open_it();
    struct rs_error err = {0};

    ck_assert_msg(rs_events_save(&ring, r, &err) == 0, "%s", err.msg);
}

/* The process ends, and another one begins. */
static size_t restart(size_t count)
{
    rs_auto(rs_records_freep) struct rs_records *r = open_it();
    struct rs_error err = {0};
    size_t left_out = 0;

    rs_events_fini(&ring);
    small(count, 0);
    ck_assert_msg(rs_events_load(&ring, r, &left_out, &err) == 0, "%s", err.msg);
    return left_out;
}

START_TEST(what_was_written_is_there_again)
{
    rs_auto(rs_freep) char *before = NULL;

    small(3, 0);
    add("a", "A", "", 1);
    add("b", "B", "", 2);
    add("a", "A", "", 3);
    save();
    add("c", "C", "", 4);
    add("d", "D", "", 5); /* B's place is another one's now */
    save();
    before = rs_strdup(show(&ring, &all));
    ck_assert_str_eq(before, "3:A*2 4:C 5:D last=5");
    add("e", "lost", "", 6);
    ck_assert_uint_eq(restart(3), 0);
    ck_assert_str_eq(show(&ring, &all), "3:A*2 4:C 5:D last=1003");
    add("f", "F", "", 7);
    ck_assert_str_eq(show(&ring, &all), "4:C 5:D 1004:F last=1004");
    save();
    ck_assert_uint_eq(restart(3), 0);
    ck_assert_str_eq(show(&ring, &all), "4:C 5:D 1004:F last=2004");
}
END_TEST

START_TEST(no_number_is_given_twice)
{
    uint64_t highest = 0;

    small(50, 0);
    for (int run = 0; run < 5; run++) {
        for (int i = 0; i < 400; i++) {
            add("x", i % 2 ? "A" : "B", "", run);
            ck_assert_uint_gt(rs_events_last(&ring), highest);
            highest = rs_events_last(&ring);
            if (i % 100 == 0)
                save();
        }
        (void)restart(50); /* without the last batch */
    }
}
END_TEST

static const struct {
    const char *kind, *name, *data;
} damaged[] = {
    {RS_EVENTS_KIND, "7", "{\"id\":"},
    {RS_EVENTS_KIND, "x", "{}"},
    {RS_EVENTS_KIND, "8", "[1]"},
    {RS_EVENTS_KIND, "99", "{\"id\":9,\"seq\":9,\"kind\":\"app\"}"}, /* of a larger ring */
    {RS_EVENTS_NUMBER_KIND, "next", "no"},
};

START_TEST(what_is_damaged_is_left_out)
{
    struct rs_records *r;

    small(10, 0);
    add("a", "A", "", 1);
    add("b", "B", "", 2);
    save();
    r = open_it();
    for (size_t i = 0; i < RS_COUNT(damaged); i++)
        ck_assert_int_eq(rs_records_put(r, damaged[i].kind, damaged[i].name, damaged[i].data,
                                        strlen(damaged[i].data), NULL),
                         0);
    rs_records_free(r);
    ck_assert_uint_eq(restart(10), 4);
    ck_assert_str_eq(show(&ring, &all), "1:A 2:B last=2");
}
END_TEST

START_TEST(batches)
{
    rs_events_init(&ring, NULL);
    ck_assert(rs_events_due(&ring, 5) == INT64_MAX);
    add("a", "A", "", 1);
    ck_assert_int_eq(rs_events_due(&ring, 5), 5 + RS_SEC);
    save();
    ck_assert(rs_events_due(&ring, 5) == INT64_MAX);
    add("a", "A", "", 2);
    ck_assert_int_eq(rs_events_due(&ring, 5), 5 + 10 * RS_SEC); /* a repeat has time */
    add("b", "B", "", 3);
    ck_assert_int_eq(rs_events_due(&ring, 5), 5 + RS_SEC);
}
END_TEST

/* --- at random --- */

static uint64_t state;

static unsigned draw(unsigned n)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(state >> 33) % n;
}

static void check_ring(size_t count, size_t bytes)
{
    uint64_t seq = 0;
    size_t n = 0, sum = 0, fresh = 0, again = 0;
    bool taken[64] = {false};

    rs_list_for_each (it, &ring.entries) {
        const struct rs_events_entry *x = rs_container_of(it, struct rs_events_entry, in);

        ck_assert_uint_gt(x->seq, seq);
        ck_assert_uint_ge(x->seq, x->id);
        seq = x->seq;
        ck_assert(x->slot < count && !taken[x->slot]);
        taken[x->slot] = true;
        sum += x->bytes;
        fresh += x->dirty && !x->repeat;
        again += x->dirty && x->repeat;
        n++;
    }
    ck_assert(n == ring.count && n <= count);
    ck_assert(sum == ring.bytes && (sum <= bytes || n == 1));
    ck_assert(fresh == ring.fresh && again == ring.again);
    ck_assert_uint_lt(seq, ring.next);
}

/* Whatever happens in whatever order: the bounds hold, the order is that of the numbers, and the disk
 * has what was there when it was written. */
START_TEST(any_history)
{
    size_t count = 1 + (size_t)_i % 40, bytes = 300 + 177 * (size_t)_i;
    const struct rs_events_conf conf = {.max_count = count, .max_bytes = bytes, .window_s = 50};
    rs_auto(rs_records_freep) struct rs_records *r = open_it();
    struct rs_error err = {0};
    double wall = 0;

    state = (uint64_t)_i + 1;
    rs_events_init(&ring, &conf);
    for (int step = 0; step < 400; step++) {
        char app[8], text[64], replica[8];

        snprintf(app, sizeof(app), "a%u", draw(6));
        snprintf(replica, sizeof(replica), "r%u", draw(9));
        memset(text, 'y', sizeof(text));
        text[draw(60)] = '\0';
        wall += draw(20);
        rs_events_add(&ring,
                      &(struct rs_event){.kind = draw(2) ? "app" : "replica",
                                         .app = app,
                                         .replica = replica,
                                         .text = text,
                                         .single = draw(9) == 0},
                      wall);
        check_ring(count, bytes);
        if (draw(30) == 0) {
            rs_auto(rs_json_decrefp) json_t *before = rs_events_list(&ring, &all), *after = NULL;
            size_t n = json_array_size(json_object_get(before, "events")), m;

            ck_assert_msg(rs_events_save(&ring, r, &err) == 0, "%s", err.msg);
            rs_events_fini(&ring);
            rs_events_init(&ring, &conf);
            ck_assert_int_eq(rs_events_load(&ring, r, NULL, &err), 0);
            check_ring(count, bytes);
            /* Older ones may have been left in places that were free. */
            after = rs_events_list(&ring, &all);
            m = json_array_size(json_object_get(after, "events"));
            ck_assert_uint_ge(m, n);
            for (size_t i = 0; i < n; i++)
                ck_assert(json_equal(json_array_get(json_object_get(before, "events"), n - 1 - i),
                                     json_array_get(json_object_get(after, "events"), m - 1 - i)));
        }
    }
}
END_TEST

RS_CHECK_MAIN("events", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, an_event_has_what_was_told);
              tcase_add_test(tc, repeats_are_counted); tcase_add_test(tc, orders_are_never_repeats);
              tcase_add_test(tc, repeats_know_their_replicas);
              tcase_add_test(tc, the_oldest_make_room); tcase_add_test(tc, bytes_are_bounded);
              tcase_add_test(tc, what_is_no_text_becomes_text); tcase_add_test(tc, pages);
              TCase *disk = tcase_create("disk"); suite_add_tcase(suite, disk);
              tcase_set_timeout(disk, 60);
              tcase_add_checked_fixture(disk, make_folder, remove_folder);
              tcase_add_test(disk, what_was_written_is_there_again);
              tcase_add_test(disk, no_number_is_given_twice);
              tcase_add_test(disk, what_is_damaged_is_left_out); tcase_add_test(disk, batches);
              tcase_add_loop_test(disk, any_history, 0, 30);)
