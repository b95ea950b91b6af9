// The PTX instructions that act on values, on memory and within a warp. run.ts makes `asm` statements calls of ptx(), which reads
// their text. Fragments and formats are written from the PTX ISA alone, so that they can tell when our tables are wrong.
// Source: PTX ISA, "Instruction Set".
// Narrow floats, by arithmetic on values: nothing here is like the integer code of dsl/numerics.ts.
struct Format { const char* name; int exponentBits, fractionBits; bool hasInfinity; };
static const Format formats[] = {{"bf16", 8, 7, true}, {"f16", 5, 10, true}, {"e4m3", 4, 3, false}, {"e5m2", 5, 2, true}};
static const Format& formatOf(const std::string& name) {
  for (const Format& format : formats) if (name == format.name) return format;
  refuse("there is no format " + name);
}
static float decode(const Format& of, unsigned bits) {
  const int top = (1 << of.exponentBits) - 1, bias = top / 2;
  const float sign = bits >> (of.exponentBits + of.fractionBits) & 1 ? -1.0f : 1.0f;
  const int exponent = bits >> of.fractionBits & top;
  const int fraction = bits & ((1 << of.fractionBits) - 1);
  if (of.hasInfinity && exponent == top) return fraction ? NAN : sign * INFINITY;
  if (!of.hasInfinity && exponent == top && fraction == (1 << of.fractionBits) - 1) return NAN;
  const int significand = exponent ? fraction + (1 << of.fractionBits) : fraction;
  return sign * ldexpf((float)significand, (exponent ? exponent : 1) - bias - of.fractionBits);
}
static unsigned encode(const Format& of, float x, bool saturates) {
  const int bits = of.exponentBits + of.fractionBits, top = (1 << of.exponentBits) - 1, bias = top / 2;
  const unsigned sign = (unsigned)std::signbit(x) << bits;
  if (x != x) return (1u << bits) - 1;
  const unsigned infinity = of.hasInfinity ? (unsigned)top << of.fractionBits : (1u << bits) - 1;
  const unsigned largest = infinity - 1;
  if (!std::isinf(x)) {
    const double magnitude = std::fabs((double)x);
    int exponent = magnitude == 0 ? 1 - bias : std::ilogb(magnitude);
    if (exponent < 1 - bias) exponent = 1 - bias;
    // To nearest even, in steps of the last place; a carry goes into the exponent by itself.
    const double steps = std::nearbyint(std::ldexp(magnitude, of.fractionBits - exponent));
    const double code = std::ldexp(exponent + bias - 1, of.fractionBits) + steps;
    if (code <= largest) return sign | (unsigned)code;
  }
  return sign | (saturates ? largest : infinity);
}

// PTX.
struct Operand { void* at; int bytes; };
template <typename T> static Operand operand(const T& x) { return {const_cast<T*>(&x), sizeof x}; }

// 32-bit addresses of shared memory, which is static here.
static char anchor;
static size_t __cvta_generic_to_shared(const void* p) { return (size_t)p; }
static char* sharedAt(uint32_t low) {
  const uintptr_t base = (uintptr_t)&anchor;
  return (char*)(base + (int32_t)(low - (uint32_t)base));
}

static std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c == at && depth == 0) parts.emplace_back();
    else if (c != ' ' || !parts.back().empty()) parts.back() += c;
  }
  return parts;
}

class Instruction {
 public:
  Instruction(std::vector<Operand>& operands, std::map<std::string, uint64_t>& registers, const std::string& text)
      : operands(operands), registers(registers), text(text) {
    const size_t space = text.find(' ');
    name = text.substr(0, space);
    if (space != std::string::npos) args = split(text.substr(space + 1), ',');
  }

  void run() {
    if (begins(".reg") || begins("griddepcontrol.") || begins("prefetch.") || begins("fence.")) return;
    if (name == "cp.async.commit_group" || name == "cp.async.wait_group") return;
    if (begins("ld.global.")) return load();
    if (begins("st.global.")) return store();
    if (begins("cvt.")) return convert();
    if (begins("cp.async.c")) return copy();
    if (begins("mma.sync.")) return multiply();
    if (begins("ldmatrix.") || begins("stmatrix.")) return matrices();
    if (name == "mov.b32" && list(args[0]).size() == 2) {
      const uint64_t whole = get(args[1]);
      for (int i = 0; i < 2; ++i) set(list(args[0])[i], whole >> 16 * i & 0xffff);
      return;
    }
    refuse("this PTX has no meaning here: " + text);
  }

 private:
  std::vector<Operand>& operands;
  std::map<std::string, uint64_t>& registers;
  std::string text, name;
  std::vector<std::string> args;

  bool begins(const char* begin) const { return text.compare(0, strlen(begin), begin) == 0; }
  bool has(const char* part) const { return name.find(part) != std::string::npos; }

  // "{%0, %1}" or "%0".
  static std::vector<std::string> list(const std::string& arg) {
    return arg[0] == '{' ? split(arg.substr(1, arg.size() - 2), ',') : std::vector<std::string>{arg};
  }
  Operand& at(const std::string& arg) { return operands.at(std::stoi(arg.substr(1))); }
  uint64_t get(const std::string& arg) {
    if (arg[0] != '%') return isdigit(arg[0]) ? std::stoull(arg) : registers[arg];
    uint64_t value = 0;
    memcpy(&value, at(arg).at, at(arg).bytes);
    return value;
  }
  void set(const std::string& arg, uint64_t value) {
    if (arg[0] != '%') registers[arg] = value;
    else memcpy(at(arg).at, &value, at(arg).bytes);
  }
  float getFloat(const std::string& arg) { return bitsAs<float>((uint32_t)get(arg)); }
  void setFloat(const std::string& arg, float value) { set(arg, bitsAs<uint32_t>(value)); }
  // "[%1]"
  uint64_t address(const std::string& arg) { return get(arg.substr(1, arg.size() - 2)); }

  int width() const { return has(".u8") || has(".b8") ? 1 : has(".b16") ? 2 : 4; }
  template <typename Word> void loadWords() {
    const Word* from = (const Word*)address(args[1]);
    for (const std::string& to : list(args[0])) set(to, *from++);
  }
  // Vectors need the alignment of all their bytes.
  void requireAligned(uint64_t p, size_t words) const {
    if (p % (words * width()) != 0) refuse("misaligned: " + text);
  }
  void load() {
    requireAligned(address(args[1]), list(args[0]).size());
    width() == 1 ? loadWords<uint8_t>() : width() == 2 ? loadWords<uint16_t>() : loadWords<uint32_t>();
  }
  template <typename Word> void storeWords() {
    Word* to = (Word*)address(args[0]);
    for (const std::string& from : list(args[1])) *to++ = (Word)get(from);
  }
  void store() {
    requireAligned(address(args[0]), list(args[1]).size());
    width() == 1 ? storeWords<uint8_t>() : width() == 2 ? storeWords<uint16_t>() : storeWords<uint32_t>();
  }

  void convert() {
    std::string type = name.substr(name.find_last_of('.') + 1);
    if (name == "cvt.f32.f16") return setFloat(args[0], decode(formatOf("f16"), get(args[1])));
    if (name == "cvt.rn.bf16.f32" || name == "cvt.rn.f16.f32") {
      return set(args[0], encode(formatOf(has("bf16") ? "bf16" : "f16"), getFloat(args[1]), false));
    }
    for (const char* fp8 : {"e4m3", "e5m2"}) {
      const Format& format = formatOf(fp8);
      if (name == std::string("cvt.rn.f16x2.") + fp8 + "x2") {
        const uint64_t both = get(args[1]);
        uint64_t halves = 0;
        for (int i = 0; i < 2; ++i) {
          halves |= (uint64_t)encode(formatOf("f16"), decode(format, both >> 8 * i & 0xff), false) << 16 * i;
        }
        return set(args[0], halves);
      }
      // The first source becomes the upper byte.
      if (name == std::string("cvt.rn.satfinite.") + fp8 + "x2.f32") {
        return set(args[0], encode(format, getFloat(args[1]), true) << 8 | encode(format, getFloat(args[2]), true));
      }
    }
    refuse("there is no such conversion: " + text);
  }

  // cp.async.cg.shared.global [to], [from], bytes(, bytes that are there)
  void copy() {
    char* to = sharedAt(address(args[0]));
    const uint64_t bytes = get(args[2]), there = args.size() > 3 ? get(args[3]) : bytes;
    if ((uintptr_t)to % bytes != 0) refuse("misaligned: " + text);
    memset(to, 0, bytes);
    memcpy(to, (const char*)address(args[1]), there);
  }

  // Which (row, k) element i of lane's A is, and which (k, column) of its B. PTX ISA, "Matrix Fragments for mma.m16n8k8", ...
  static void placeA(int bytes, int K, int lane, int i, int& row, int& k) {
    const int group = lane / 4, inGroup = lane % 4;
    if (bytes == 4) row = group + (i & 1) * 8, k = inGroup + (i >> 1) * 4;
    else if (bytes == 2) row = group + (i >> 1 & 1) * 8, k = inGroup * 2 + (i & 1) + (i >> 2) * 8;
    else row = group + (i >> 2 & 1) * 8, k = inGroup * 4 + (i & 3) + (i >> 3) * 16;
    if (k >= K) refuse("a fragment has too many elements");
  }
  static int rowOfB(int bytes, int lane, int i) {
    const int inGroup = lane % 4;
    if (bytes == 4) return inGroup + i * 4;
    return bytes == 2 ? inGroup * 2 + (i & 1) + (i >> 1) * 8 : inGroup * 4 + (i & 3) + (i >> 2) * 16;
  }
  static double value(const std::string& type, uint32_t word, int bytes, int i) {
    if (type == "tf32") return bitsAs<float>(word & 0xffffe000u);
    const uint32_t bits = word >> (i % (4 / bytes) * bytes * 8) & (bytes == 1 ? 0xff : 0xffff);
    return type == "s8" ? (double)(int8_t)bits : (double)decode(formatOf(type), bits);
  }

  // Sums in float64: right for data that is exact in any order.
  void multiply() {
    const std::vector<std::string> parts = split(name, '.');
    const int K = std::stoi(parts[3].substr(parts[3].find('k') + 1));
    const std::string typeA = parts[7], typeB = parts[8];
    const bool isInteger = parts[6] == "s32";
    const int bytes = typeA == "tf32" ? 4 : typeA == "f16" || typeA == "bf16" ? 2 : 1;
    const std::vector<std::string> a = list(args[1]), b = list(args[2]), c = list(args[3]), d = list(args[0]);
    std::vector<uint32_t> words;
    for (const std::string& word : a) words.push_back(get(word));
    for (const std::string& word : b) words.push_back(get(word));
    std::vector<double> matrixA(16 * K), matrixB(K * 8);
    gather(words, [&](const std::vector<uint32_t>* all) {
      const int perWord = 4 / bytes;
      for (int i = 0; i < 32 * (int)words.size() * perWord; ++i) {
        const int lane = i % 32, element = i / 32;
        const int ofB = element - (int)a.size() * perWord;
        const uint32_t word = all[lane][element / perWord];
        int row, k;
        if (ofB >= 0) matrixB[rowOfB(bytes, lane, ofB) * 8 + lane / 4] = value(typeB, word, bytes, ofB);
        else placeA(bytes, K, lane, element, row, k), matrixA[row * K + k] = value(typeA, word, bytes, element);
      }
      return 0;
    });
    for (int i = 0; i < 4; ++i) {
      const int row = laneId() / 4 + i / 2 * 8, column = laneId() % 4 * 2 + i % 2;
      double sum = isInteger ? (double)(int32_t)get(c[i]) : (double)getFloat(c[i]);
      for (int k = 0; k < K; ++k) sum += matrixA[row * K + k] * matrixB[k * 8 + column];
      if (isInteger) set(d[i], (uint32_t)(int64_t)sum);
      else setFloat(d[i], (float)sum);
    }
  }

  // Lane 8 i + r gives the address of row r of matrix i; a lane has the 4 bytes at 4 (lane % 4) of row lane / 4, or transposed.
  void matrices() {
    const bool loads = begins("ld");
    const std::vector<std::string> words = list(args[loads ? 0 : 1]);
    const uint32_t own = address(args[loads ? 1 : 0]);
    uint32_t starts[32];
    gather({own}, [&](const std::vector<uint32_t>* all) {
      for (int lane = 0; lane < 32; ++lane) starts[lane] = all[lane][0];
      return 0;
    });
    for (size_t i = 0; i < words.size(); ++i) {
      uint32_t word = loads ? 0 : get(words[i]);
      for (int half = 0; half < 2; ++half) {
        const int along = laneId() % 4 * 2 + half, across = laneId() / 4;
        const int row = has(".trans") ? along : across, column = has(".trans") ? across : along;
        uint16_t* begin = (uint16_t*)sharedAt(starts[i * 8 + row]);
        if ((uintptr_t)begin % 16 != 0) refuse("misaligned: " + text);
        if (loads) word |= (uint32_t)begin[column] << 16 * half;
        else begin[column] = word >> 16 * half;
      }
      if (loads) set(words[i], word);
    }
  }
};

static void ptx(const char* text, std::vector<Operand> operands) {
  std::string plain;
  for (const char* c = text; *c; ++c) plain += *c;
  // A block's braces only limit the scope of its registers.
  if (plain[0] == '{') plain = plain.substr(1, plain.find_last_of('}') - 1);
  std::map<std::string, uint64_t> registers;
  for (const std::string& one : split(plain, ';')) {
    if (!one.empty()) Instruction(operands, registers, one).run();
  }
}
