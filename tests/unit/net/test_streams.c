#include "net/router/streams.h"

#include "tests/unit/check_main.h"

START_TEST(puts_and_takes)
{
    struct rs_streams m = {0};
    int one, two;

    ck_assert_ptr_null(rs_streams_get(&m, 2));
    ck_assert_ptr_null(rs_streams_take(&m, 2));
    rs_streams_put(&m, 2, &one);
    rs_streams_put(&m, 4, &two);
    ck_assert_ptr_eq(rs_streams_get(&m, 2), &one);
    ck_assert_ptr_eq(rs_streams_get(&m, 4), &two);
    ck_assert_ptr_null(rs_streams_get(&m, 0));
    ck_assert_ptr_eq(rs_streams_take(&m, 2), &one);
    ck_assert_ptr_null(rs_streams_take(&m, 2));
    ck_assert_uint_eq(m.count, 1);
    rs_streams_fini(&m);
}
END_TEST

/* Numbers rise and leave out of order, as they do on a connection; gaps must be closed. */
START_TEST(many_in_any_order)
{
    enum { N = 5000, ALIVE = 300 };
    static char values[N];
    static unsigned char alive[N];
    struct rs_streams m = {0};
    uint64_t seed = (uint64_t)_i + 1;
    size_t n_alive = 0;

    for (size_t next = 0; next < N;) {
        size_t i;

        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        i = (size_t)(seed >> 33) % N;
        if (n_alive < ALIVE) {
            alive[next] = 1;
            n_alive++;
            rs_streams_put(&m, 2 + 2 * next, &values[next]);
            next++;
        }
        ck_assert_ptr_eq(rs_streams_get(&m, 2 + 2 * i), alive[i] ? &values[i] : NULL);
        if (alive[i]) {
            ck_assert_ptr_eq(rs_streams_take(&m, 2 + 2 * i), &values[i]);
            alive[i] = 0;
            n_alive--;
        } else if (n_alive >= ALIVE) { /* make room: the oldest */
            for (i = 0; !alive[i]; i++)
                ;
            ck_assert_ptr_eq(rs_streams_take(&m, 2 + 2 * i), &values[i]);
            alive[i] = 0;
            n_alive--;
        }
        ck_assert_uint_eq(m.count, n_alive);
    }
    for (size_t i = 0; i < N; i++)
        ck_assert_ptr_eq(rs_streams_take(&m, 2 + 2 * i), alive[i] ? &values[i] : NULL);
    ck_assert_uint_eq(m.count, 0);
    ck_assert_uint_le(m.size, 1024);
    rs_streams_fini(&m);
}
END_TEST

RS_CHECK_MAIN("streams", tcase_add_test(tc, puts_and_takes);
              tcase_add_loop_test(tc, many_in_any_order, 0, 5);)
