#include "core/resource/ledger.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct rs_ledger *node(int64_t cpu, int64_t gpu, int64_t memory)
{
    struct rs_resources total = {.cpu = cpu * RS_ONE, .gpu = gpu * RS_ONE, .memory = memory};
    struct rs_ledger *l = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_ledger_new(&l, &total, &err), 0);
    return l;
}

static struct rs_reservation *reserve_gpu(struct rs_ledger *l, int64_t gpu)
{
    struct rs_resources want = {.gpu = gpu};
    struct rs_reservation *r = NULL;
    int got = rs_ledger_reserve(l, &want, &r);

    rs_ledger_check(l);
    ck_assert_int_eq(got, r ? 0 : RS_LEDGER_NO_ROOM);
    return r;
}

START_TEST(life)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(2, 0, 1000);
    struct rs_resources want = {.cpu = 12000, .memory = 400};
    struct rs_reservation *a = NULL, *b = NULL;

    ck_assert_int_eq(rs_ledger_reserve(l, &want, &a), 0);
    ck_assert(!a->committed);
    ck_assert_uint_eq(a->device_count, 0);
    ck_assert_int_eq(rs_ledger_reserve(l, &want, &b), RS_LEDGER_NO_ROOM);
    ck_assert_ptr_null(b);
    ck_assert_int_eq(rs_ledger_available(l)->cpu, 8000);
    rs_ledger_commit(l, a);
    ck_assert(a->committed);
    ck_assert_uint_eq(rs_ledger_count(l), 1);
    rs_ledger_check(l);
    rs_ledger_release(l, a);
    rs_ledger_release(l, NULL);
    ck_assert(rs_resources_equal(rs_ledger_available(l), rs_ledger_total(l)));
    rs_ledger_check(l);
}
END_TEST

/* Fractions fill a device before they open another, and never span two. */
START_TEST(fractions)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(0, 2, 0);
    struct rs_reservation *a = reserve_gpu(l, 6000), *b = reserve_gpu(l, 6000);
    const struct rs_reservation *c, *d;
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    struct rs_resources more = {.gpu = 6000};

    ck_assert_int_eq(a->devices[0], 0);
    ck_assert_int_eq(b->devices[0], 1);
    ck_assert_ptr_null(reserve_gpu(l, 6000)); /* 0.8 are free, on no single device */
    ck_assert(rs_ledger_why(l, &more, &why));
    ck_assert_str_eq(rs_buf_text(&why),
                     "needs 0.6 GPU on one device; node has 2, 0.8 free, at most 0.4 on one");
    c = reserve_gpu(l, 4000);
    ck_assert_int_eq(c->devices[0], 0);
    d = reserve_gpu(l, 3000);
    ck_assert_int_eq(d->devices[0], 1);
    ck_assert_int_eq(rs_ledger_device_free(l, 1), 1000);
    rs_ledger_release(l, b);
    rs_ledger_check(l);
    ck_assert_int_eq(rs_ledger_device_free(l, 1), 7000);
}
END_TEST

START_TEST(whole_devices)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(0, 4, 0);
    struct rs_reservation *part = reserve_gpu(l, 1000);
    const struct rs_reservation *two = reserve_gpu(l, 2 * RS_ONE);
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    struct rs_resources want = {.gpu = 2 * RS_ONE};

    ck_assert_uint_eq(two->device_count, 2);
    ck_assert_int_eq(two->devices[0], 1);
    ck_assert_int_eq(two->devices[1], 2);
    ck_assert_ptr_nonnull(reserve_gpu(l, 9000)); /* on the fourth: the first has 0.9 too */
    ck_assert_ptr_null(reserve_gpu(l, 2 * RS_ONE));
    rs_ledger_release(l, part);
    ck_assert(rs_ledger_why(l, &want, &why));
    ck_assert(rs_ledger_feasible(l, &want));
}
END_TEST

START_TEST(fragmented_whole)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(0, 3, 0);
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    struct rs_resources want = {.gpu = 2 * RS_ONE}, odd = {.gpu = 15000};

    ck_assert_ptr_nonnull(reserve_gpu(l, 6000));
    ck_assert_ptr_nonnull(reserve_gpu(l, 4100)); /* 1.99 free, one device unused */
    ck_assert_ptr_null(reserve_gpu(l, 2 * RS_ONE));
    ck_assert(rs_ledger_why(l, &want, &why));
    ck_assert_str_eq(rs_buf_text(&why), "needs 2 GPU; node has 3, 1.99 free");
    ck_assert(!rs_ledger_feasible(l, &odd));
}
END_TEST

static const struct {
    struct rs_resources want;
    const char *custom, *why; /* NULL: fits */
} whys[] = {
    {{.cpu = 20000}, NULL, NULL},
    {{.gpu = 10000}, NULL, "needs 1 GPU; node has 0, 0 free"},
    {{.cpu = 30000}, NULL, "needs 3 CPU; node has 2, 2 free"},
    {{.cpu = 30000, .gpu = 5000, .memory = 4096},
     NULL,
     "needs 3 CPU; node has 2, 2 free; needs 0.5 GPU; node has 0, 0 free; needs 4 KiB of memory; "
     "node has 1000 bytes, 1000 bytes free"},
    {{0}, "disk", "needs 1 disk; node has 0, 0 free"},
};

START_TEST(why)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(2, 0, 1000);
    rs_auto(rs_resources_fini) struct rs_resources want = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    rs_resources_copy(&want, &whys[_i].want);
    if (whys[_i].custom)
        rs_resources_set_custom(&want, whys[_i].custom, RS_ONE);
    ck_assert_int_eq(rs_ledger_why(l, &want, &text), whys[_i].why != NULL);
    ck_assert_str_eq(rs_buf_text(&text), whys[_i].why ? whys[_i].why : "");
    ck_assert_int_eq(rs_ledger_feasible(l, &want), whys[_i].why == NULL);
}
END_TEST

/* What runs is a fact, also beyond what is free, and with devices that nobody has. */
START_TEST(adopts)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(1, 2, 0);
    struct rs_resources big = {.cpu = 30000, .gpu = 2 * RS_ONE}, half = {.gpu = 5000};
    static const int devices[] = {1, 7, 0, -1};
    struct rs_reservation *a, *b, *c;

    rs_ledger_adopt(l, &big, devices, RS_COUNT(devices), &a);
    rs_ledger_check(l);
    ck_assert_uint_eq(a->device_count, 2);
    ck_assert(a->committed);
    ck_assert_int_eq(rs_ledger_available(l)->cpu, -20000);
    rs_ledger_adopt(l, &half, devices, RS_COUNT(devices), &b);
    rs_ledger_check(l);
    ck_assert_uint_eq(b->device_count, 1);
    ck_assert_int_eq(rs_ledger_device_free(l, 1), -5000);
    ck_assert_ptr_null(reserve_gpu(l, 1));
    rs_ledger_adopt(l, &half, NULL, 0, &c);
    rs_ledger_check(l);
    rs_ledger_release(l, a);
    rs_ledger_release(l, b);
    rs_ledger_release(l, c);
    ck_assert(rs_resources_equal(rs_ledger_available(l), rs_ledger_total(l)));
}
END_TEST

START_TEST(refuses)
{
    struct rs_resources half = {.gpu = 15000}, many = {.gpu = (RS_GPU_MAX + 1) * RS_ONE};
    struct rs_ledger *l = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_ledger_new(&l, &half, &err), -1);
    ck_assert_int_eq(rs_ledger_new(&l, &many, &err), -1);
    ck_assert_ptr_null(l);
}
END_TEST

/* Any order of reserve, commit, release and adopt keeps the books whole. */
START_TEST(random_walk)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = node(8, 4, 1 << 20);
    struct rs_reservation *held[64] = {0};
    uint64_t seed = (uint64_t)_i + 1;

    for (int step = 0; step < 3000; step++) {
        size_t at;

        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        at = (seed >> 33) % RS_COUNT(held);
        if (held[at]) {
            if (!held[at]->committed && (seed >> 50) % 2)
                rs_ledger_commit(l, held[at]);
            rs_ledger_release(l, held[at]);
            held[at] = NULL;
        } else {
            int64_t gpu = (int64_t)((seed >> 40) % 13000);
            struct rs_resources want = {.cpu = (int64_t)((seed >> 20) % 20000),
                                        .gpu = gpu > RS_ONE ? 2 * RS_ONE : gpu,
                                        .memory = (int64_t)((seed >> 10) % 100000)};

            if (rs_ledger_reserve(l, &want, &held[at]) != 0) {
                rs_auto(rs_buf_fini) struct rs_buf text = {0};

                ck_assert_ptr_null(held[at]);
                ck_assert(rs_ledger_why(l, &want, &text));
            }
        }
        rs_ledger_check(l);
    }
}
END_TEST

RS_CHECK_MAIN("ledger", tcase_add_test(tc, life); tcase_add_test(tc, fractions);
              tcase_add_test(tc, whole_devices); tcase_add_test(tc, fragmented_whole);
              tcase_add_loop_test(tc, why, 0, RS_COUNT(whys)); tcase_add_test(tc, adopts);
              tcase_add_test(tc, refuses); tcase_add_loop_test(tc, random_walk, 0, 4);)
