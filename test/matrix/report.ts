// Formats outcomes as a table with a row for each Node and a column for each Fastify.

import type { Outcome } from './suite.ts'

/** Rows and columns are in the order of their first appearance. */
export class Table {
  private readonly columns: string[] = []
  private readonly rows = new Map<string, Map<string, string>>()

  add (row: string, column: string, text: string): void {
    if (!this.columns.includes(column)) this.columns.push(column)
    if (!this.rows.has(row)) this.rows.set(row, new Map())
    this.rows.get(row)!.set(column, text)
  }

  get isEmpty (): boolean {
    return this.rows.size === 0
  }

  toString (): string {
    const lines = [
      ['Node', ...this.columns],
      ['---', ...this.columns.map(() => '---:')],
      ...[...this.rows].map(([row, texts]) => [row, ...this.columns.map((column) => texts.get(column) ?? '')])
    ]
    return lines.map((line) => `| ${line.join(' | ')} |`).join('\n')
  }
}

const number = (count: number): string => count.toLocaleString('en')

export function describeOutcome ({ passed, failed, skipped, todo }: Outcome): string {
  const parts = [failed > 0 && `${number(failed)} failed`, skipped > 0 && `${number(skipped)} skipped`, todo > 0 && `${number(todo)} todo`]
  return [number(passed), ...parts.filter((part) => part !== false)].join(' + ')
}
