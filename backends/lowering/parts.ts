/** Pieces of a generated file's prelude: each is written once, when something first needs it, after those it needs itself. */
export class Parts {
  private readonly parts = new Map<string, string>();

  /** All pieces that were asked for. */
  render(): string {
    return [...this.parts.values()].join("\n");
  }

  /** Adds a piece unless it is there; returns its name. `code` may ask for other pieces. */
  protected part(name: string, code: () => string): string {
    if (!this.parts.has(name)) {
      const text = code();
      this.parts.set(name, text);
    }
    return name;
  }
}
