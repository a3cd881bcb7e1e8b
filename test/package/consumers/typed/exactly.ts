/** Of exactly this type: `any` is none. */
export function exactly<Expected> (): <Actual> (value: (<T>() => T extends Actual ? 1 : 2) extends (<T>() => T extends Expected ? 1 : 2) ? Actual : never) => void {
  return () => {}
}
