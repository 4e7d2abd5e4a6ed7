/* Causal attention from C.
 *
 *   cc -std=c11 attention.c $(pkg-config --cflags --libs numattn) -o attention && ./attention
 */
#include <numattn.h>
#include <stdio.h>

enum { HEADS = 2, LENGTH = 4, WIDTH = 3, COUNT = HEADS * LENGTH * WIDTH };

int main(void) {
  float q[COUNT], k[COUNT], v[COUNT], out[COUNT], lse[HEADS * LENGTH];
  for (int i = 0; i < COUNT; ++i) {
    q[i] = (float)(i * 7 % 11 - 5) / 4;
    k[i] = (float)(i * 5 % 13 - 6) / 4;
    v[i] = (float)(i * 3 % 7 - 3) / 2;
  }

  const int64_t shape[4] = {1, HEADS, LENGTH, WIDTH};
  numattn_attention_args args = numattn_attention_defaults();
  args.q = numattn_contiguous(q, NUMATTN_FLOAT32, 4, shape);
  args.k = numattn_contiguous(k, NUMATTN_FLOAT32, 4, shape);
  args.v = numattn_contiguous(v, NUMATTN_FLOAT32, 4, shape);
  args.out = numattn_contiguous(out, NUMATTN_FLOAT32, 4, shape);
  args.lse = numattn_contiguous(lse, NUMATTN_FLOAT32, 3, shape);
  args.is_causal = 1;
  if (numattn_attention(&args) != NUMATTN_OK) {
    fprintf(stderr, "%s\n", numattn_last_error());
    return 1;
  }
  for (int row = 0; row < HEADS * LENGTH; ++row) {
    for (int i = 0; i < WIDTH; ++i) printf("%9.6f ", out[row * WIDTH + i]);
    printf(" lse %9.6f\n", lse[row]);
  }

  /* What does not fit is refused, with words. */
  args.k.shape[3] = 2;
  if (numattn_attention(&args) == NUMATTN_INVALID_ARGUMENT) {
    printf("refused: %s\n", numattn_last_error());
  }
  return 0;
}
