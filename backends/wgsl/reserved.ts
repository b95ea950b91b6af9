/** Words that WGSL keeps to itself, or that a generated module uses; WGSL specification, "Keyword Summary", "Reserved Words". */
export const reserved: readonly string[] = (
  "alias break case const const_assert continue continuing default diagnostic discard else enable false fn for if let loop override " +
  "requires return struct switch true var while " +
  "NULL Self abstract active alignas alignof as asm asm_fragment async attribute auto await become cast catch class co_await co_return " +
  "co_yield coherent column_major common compile compile_fragment concept const_cast consteval constexpr constinit crate debugger " +
  "decltype delete demote demote_to_helper do dynamic_cast enum explicit export extends extern external fallthrough filter final finally " +
  "friend from fxgroup get goto groupshared highp impl implements import inline instanceof interface layout lowp macro macro_rules match " +
  "mediump meta mod module move mut mutable namespace new nil noexcept noinline nointerpolation non_coherent noncoherent noperspective " +
  "null nullptr of operator package packoffset partition pass patch pixelfragment precise precision premerge priv protected pub public " +
  "readonly ref regardless register reinterpret_cast require resource restrict self set shared sizeof smooth snorm static static_assert " +
  "static_cast std subroutine super target template this thread_local throw trait try type typedef typeid typename typeof union unless " +
  "unorm unsafe unsized use using varying virtual volatile wgsl where with writeonly yield " +
  "bool f16 f32 i32 u32 vec2 vec3 vec4 mat2x2 mat3x3 mat4x4 array atomic ptr sampler texture_2d bitcast select min max abs clamp exp log " +
  "sqrt floor ceil tanh fma dot inverseSqrt countOneBits countLeadingZeros workgroupBarrier storageBarrier atomicLoad atomicStore atomicAnd " +
  "atomicOr atomicCompareExchangeWeak launch Launch block block_x block_y block_z warp lane by group invocation no_bits f32_from_bits " +
  "a b c i e r v x first bits result old sum compare guard shift sign exponent fraction"
).split(" ");
