/** Words that CUDA C keeps to itself, or that a generated file uses. */
export const reserved: readonly string[] = [
  ...(
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class compl const constexpr const_cast " +
    "continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long " +
    "mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast return short " +
    "signed sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename union " +
    "unsigned using virtual void volatile wchar_t while xor xor_eq restrict " +
    "NULL NAN INFINITY HUGE_VAL EOF errno assert stdin stdout stderr " +
    "blockIdx threadIdx gridDim blockDim warpSize min max dot get_lane set_lane unpack main half pdl_wait pdl_launch_dependents " +
    "shared_address matrix_descriptor pin_registers of_peer cluster_rank cluster_arrive cluster_wait TensorMap bulk_copy prefetch_l2 " +
    "copy_async_commit copy_async_arrive evict_first " +
    "mbarrier_init mbarrier_init_fence mbarrier_await mbarrier_arrive mbarrier_arrive_expect mbarrier_arrive_peer " +
    "mbarrier_arrive_expect_peer named_barrier_sync named_barrier_arrive async_fence wgmma_fence wgmma_commit mma_m16n8k8_tf32 " +
    "fmaf fminf fmaxf fabsf expf logf sqrtf rsqrtf tanhf floorf ceilf " +
    "atomicAdd atomicMin atomicMax atomicAnd atomicOr atomicXor atomicExch atomicCAS"
  ).split(" "),
  // With a number in their names
  ...[4, 8, 16].flatMap((bytes) => [`copy_async_${bytes}`, `copy_async_${bytes}_or_zeros`]),
  ...[1, 2, 3, 4, 5].flatMap((rank) => [`tensor_copy_${rank}d`, `tensor_copy_${rank}d_stream`]),
  ...Array.from({ length: 256 }, (_, i) => [`copy_async_wait_${i}`, `wgmma_wait_${i}`]).flat(),
  ...Array.from({ length: 256 }, (_, i) => [`increase_registers_to_${i}`, `decrease_registers_to_${i}`]).flat(),
];

/** Functions that nvcc declares before the first line of a file; a kernel can't have their names. */
export const libraryNames: ReadonlySet<string> = new Set(
  (
    "abort abs acos acosh alloca asin asinh atan atan2 atanh atof atoi atol calloc cbrt ceil clock copysign cos cosh cospi difftime div " +
    "erf erfc erfcinv erfcx erfinv exit exp exp10 exp2 expm1 fabs fdim floor fma fmax fmin fmod fprintf free frexp gamma hypot ilogb " +
    "index isfinite isinf isnan j0 j1 jn labs ldexp ldiv lgamma llabs llrint llround log log10 log1p log2 logb lrint lround malloc " +
    "memchr memcmp memcpy memmove memset modf nan nearbyint nextafter norm norm3d norm4d normcdf pow printf putchar puts qsort rand " +
    "realloc remainder remquo rhypot rindex rint rnorm round rsqrt scalbln scalbn signal signbit sin sincos sinh sinpi sqrt srand " +
    "strcat strchr strcmp strcpy strlen system tan tanh tgamma time trap trunc y0 y1 yn"
  ).split(" "),
);
