#include "core/base/hash.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* The key of the published test vectors of SipHash-2-4-128: bytes 0 to 15. */
static const struct rs_hash_key key = {
    {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};

static struct rs_hash_sum sum_of(size_t len, size_t piece)
{
    unsigned char text[64];
    struct rs_hash h;

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (unsigned char)i;
    rs_hash_init(&h, &key);
    for (size_t at = 0; at < len; at += piece)
        rs_hash_put(&h, text + at, len - at < piece ? len - at : piece);
    return rs_hash_end(&h);
}

START_TEST(vectors)
{
    static const unsigned char none[] = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                                         0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
    static const unsigned char one[] = {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44,
                                        0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45};
    struct rs_hash_sum a = sum_of(0, 1), b = sum_of(1, 1);

    ck_assert_int_eq(memcmp(a.h, none, sizeof(none)), 0);
    ck_assert_int_eq(memcmp(b.h, one, sizeof(one)), 0);
}
END_TEST

START_TEST(pieces_do_not_count)
{
    for (size_t len = 0; len <= 64; len++) {
        for (size_t piece = 1; piece <= 64; piece++)
            ck_assert(rs_hash_same(sum_of(len, piece), sum_of(len, 64)));
    }
}
END_TEST

START_TEST(fields_stay_apart)
{
    struct rs_hash a, b;

    rs_hash_init(&a, &key);
    rs_hash_init(&b, &key);
    rs_hash_put_field(&a, "a", 1);
    rs_hash_put_field(&a, "bc", 2);
    rs_hash_put_field(&b, "ab", 2);
    rs_hash_put_field(&b, "c", 1);
    ck_assert(!rs_hash_same(rs_hash_end(&a), rs_hash_end(&b)));
}
END_TEST

RS_CHECK_MAIN("hash", tcase_add_test(tc, vectors); tcase_add_test(tc, pieces_do_not_count);
              tcase_add_test(tc, fields_stay_apart);)
