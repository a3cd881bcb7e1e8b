// The pages of the documentation: their sections, tables, links and snippets.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

export const ROOT = join(__dirname, '../..')

export const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** Pages that a user reads for what the package does. Their snippets are compiled and run. */
export const PAGES: readonly string[] = ['README.md', ...readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)]

/** The snippets of JavaScript and TypeScript of a page, without the indentation that they have in a list. */
export function snippetsIn (path: string): { language: 'js' | 'ts', code: string }[] {
  return [...read(path).matchAll(/^( *)```(js|ts)\n(.*?)^\1```/gms)].map(([, indent, language, code]) => {
    return { language: language as 'js' | 'ts', code: code.replaceAll(new RegExp(`^${indent}`, 'gm'), '') }
  })
}

/** The text of a section, up to the next heading of the same rank. */
export function sectionIn (path: string, heading: string): string {
  const section = read(path).split(/^## /m).find((text) => text.startsWith(`${heading}\n`))
  assert(section, `${path} has a section "${heading}"`)
  return section
}

/** The rows of the tables in a text, as cells, without the heads of the tables. */
export function rowsIn (text: string): string[][] {
  return [...text.replaceAll(/^\|.*\|\n\|[-:| ]+\|\n/gm, '').matchAll(/^\|(.*)\|$/gm)].map(([, row]) => row.split('|').map((cell) => cell.trim()))
}

/** Without what is code: a link in it is none. */
const prose = (path: string): string => read(path).replaceAll(/^( *)```.*?^\1```/gms, '').replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]]/g, ' '))

/** The targets of the links and pictures of a page. */
export function linksIn (path: string): string[] {
  return [...prose(path).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target)
}

/** The anchors of a page, as GitHub makes them from the headings. */
export function anchorsIn (path: string): string[] {
  const seen = new Map<string, number>()
  return [...read(path).replaceAll(/^( *)```.*?^\1```/gms, '').matchAll(/^#+ (.*)$/gm)].map(([, heading]) => {
    const slug = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-')
    const count = seen.get(slug) ?? 0
    seen.set(slug, count + 1)
    return count === 0 ? slug : `${slug}-${count}`
  })
}
