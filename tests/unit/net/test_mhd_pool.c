/* The pool that stands in for libmicrohttpd's, with its names. */
#include "net/http/mhd_pool.h"

#include "tests/unit/check_main.h"

#include <stdint.h>
#include <string.h>

#ifdef RS_MHD_POOL

enum { SIZE = 32 << 10, BLOCKS = 400 };

struct block {
    unsigned char *at;
    size_t len;
    unsigned char mark;
};

static void fill(struct block *b)
{
    memset(b->at, b->mark, b->len);
}

static void check_block(const struct block *b)
{
    size_t same = 0;

    while (same < b->len && b->at[same] == b->mark)
        same++;
    ck_assert_uint_eq(same, b->len);
}

/* As libmicrohttpd uses it: one block at the start that grows, shrinks and moves on, small ones from
 * the end. None may touch another one. */
START_TEST(blocks_keep_apart)
{
    struct MemoryPool *p = MHD_pool_create(SIZE);
    struct block small[BLOCKS], buffer = {.mark = 255};
    uint64_t seed = (uint64_t)_i + 1;

    ck_assert_ptr_nonnull(p);
    for (int round = 0; round < 50; round++) {
        size_t n = 0, whole = SIZE / 2;

        buffer.at = MHD_pool_reset(p, buffer.at, buffer.len < 100 ? buffer.len : 0, whole);
        buffer.len = whole;
        fill(&buffer);
        for (int step = 0; step < 200 && n < BLOCKS; step++) {
            size_t draw, missing = 0;

            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            draw = (size_t)(seed >> 40);
            if (draw % 8 < 5) {
                struct block b = {.len = draw / 8 % 300, .mark = (unsigned char)(n % 251)};

                b.at = MHD_pool_try_alloc(p, b.len, &missing);
                if (!b.at) {
                    ck_assert_uint_gt(missing, 0);
                    continue;
                }
                ck_assert_uint_eq((uintptr_t)b.at % 16, 0);
                fill(&b);
                small[n++] = b;
            } else if (draw % 8 == 5) { /* some of it was read */
                size_t used = draw / 8 % 50;

                if (used < buffer.len) {
                    buffer.at += used;
                    buffer.len -= used;
                }
            } else {
                size_t want = draw % 8 == 6 ? buffer.len / 2
                                            : buffer.len + draw / 8 % (MHD_pool_get_free(p) + 1);
                void *at = MHD_pool_reallocate(p, buffer.at, buffer.len, want);

                ck_assert_ptr_nonnull(at);
                buffer.at = at;
                buffer.len = want;
                fill(&buffer);
            }
        }
        for (size_t i = 0; i < n; i++)
            check_block(&small[i]);
        check_block(&buffer);
    }
    MHD_pool_destroy(p);
}
END_TEST

START_TEST(what_is_kept_moves_to_the_start)
{
    struct MemoryPool *p = MHD_pool_create(SIZE);
    char *buffer = MHD_pool_allocate(p, SIZE / 2, false), *again;

    memcpy(buffer + 1000, "GET / HTTP/1.1", 14);
    ck_assert_ptr_nonnull(MHD_pool_allocate(p, 10000, true));
    again = MHD_pool_reset(p, buffer + 1000, 14, SIZE / 2);
    ck_assert_ptr_eq(again, buffer);
    ck_assert_mem_eq(again, "GET / HTTP/1.1", 14);
    ck_assert_uint_ge(MHD_pool_get_free(p), SIZE / 2);
    MHD_pool_destroy(p);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct MemoryPool *p = MHD_pool_create(SIZE);
    size_t missing = 0, room = MHD_pool_get_free(p);
    char *buffer = MHD_pool_allocate(p, room, false);

    ck_assert_ptr_nonnull(buffer);
    ck_assert_ptr_null(MHD_pool_allocate(p, 16, false));
    ck_assert_ptr_null(MHD_pool_try_alloc(p, 4000, &missing));
    ck_assert_uint_eq(missing, 4000);
    ck_assert_ptr_null(MHD_pool_try_alloc(p, SIZE_MAX - 3, &missing));
    ck_assert_uint_eq(missing, SIZE_MAX);
    ck_assert_ptr_null(MHD_pool_reallocate(p, buffer, room, SIZE_MAX - 3));
    ck_assert_ptr_null(MHD_pool_reallocate(p, buffer, room, room + 1));
    ck_assert_ptr_eq(MHD_pool_reallocate(p, buffer, room, room - 4000), buffer);
    ck_assert_ptr_nonnull(MHD_pool_try_alloc(p, 4000, &missing));
    MHD_pool_destroy(p);
    ck_assert_ptr_null(MHD_pool_create(0));
    ck_assert_ptr_null(MHD_pool_create(SIZE_MAX));
}
END_TEST

/* What a connection that is idle has in its pool is not missed, what came meanwhile is. */
START_TEST(pages_of_a_resting_pool_come_back)
{
    struct MemoryPool *p = MHD_pool_create(SIZE), *found, *left;
    char *buffer = MHD_pool_allocate(p, SIZE / 2, false);

    rs_mhd_pool_find(&left);
    ck_assert_ptr_eq(left, p);
    rs_mhd_pool_leave(&left); /* it is not written to any more */
    rs_mhd_pool_find(&found);
    ck_assert_ptr_eq(found, p);
    left = (struct MemoryPool *)(uintptr_t)1;
    memset(buffer, 'x', SIZE / 2);
    buffer = MHD_pool_reset(p, NULL, 0, SIZE / 2);
    rs_mhd_pool_rest(p);
    ck_assert_int_eq(buffer[1], 0);
    memcpy(buffer, "GET", 3);
    rs_mhd_pool_rest(p);
    ck_assert_mem_eq(buffer, "GET", 3);
    buffer = MHD_pool_reset(p, buffer + 1, 2, SIZE / 2);
    rs_mhd_pool_rest(p);
    ck_assert_mem_eq(buffer, "ET", 2);
    MHD_pool_destroy(p);
    ck_assert_ptr_null(found); /* its connection has no pool any more, and may not be told yet */
    ck_assert_uint_eq((uintptr_t)left, 1);
    rs_mhd_pool_rest(found);
    rs_mhd_pool_find(&found);
    ck_assert_ptr_null(found);
}
END_TEST

/* A large one among those of the usual size, and more than are kept. */
START_TEST(pools_come_again)
{
    struct MemoryPool *p[300];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 300; i++) {
            p[i] = MHD_pool_create(i % 100 == 99 ? 4 * SIZE : SIZE);
            ck_assert_ptr_nonnull(p[i]);
            memset(MHD_pool_allocate(p[i], SIZE, false), (int)i, SIZE);
        }
        for (size_t i = 0; i < 300; i++)
            MHD_pool_destroy(p[i]);
    }
    MHD_pool_destroy(NULL);
}
END_TEST

RS_CHECK_MAIN("mhd_pool", tcase_add_loop_test(tc, blocks_keep_apart, 0, 20);
              tcase_add_test(tc, what_is_kept_moves_to_the_start);
              tcase_add_test(tc, what_does_not_fit_is_refused);
              tcase_add_test(tc, pages_of_a_resting_pool_come_back);
              tcase_add_test(tc, pools_come_again);)
#else
RS_CHECK_MAIN("mhd_pool", (void)tc;)
#endif
