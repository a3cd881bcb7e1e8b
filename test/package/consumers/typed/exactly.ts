/** Accepts a value of exactly this type. `any` is a compile error, too. */
export function exactly<Expected> (): <Actual> (value: (<T>() => T extends Actual ? 1 : 2) extends (<T>() => T extends Expected ? 1 : 2) ? Actual : never) => void {
  return () => {}
}
