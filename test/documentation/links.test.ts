// The links between the pages, and those to other files of the repository, lead somewhere.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { PAGES, ROOT, anchorsIn, linksIn, read, snippetsIn } from './pages.ts'

const ALL = [...PAGES, 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'example/README.md']

t.test('relative links lead to files, and anchors to headings', async (t) => {
  let found = 0
  for (const page of ALL) {
    for (const link of linksIn(page)) {
      if (/^[a-z]+:/.test(link)) continue
      found++
      const [path, anchor] = link.split('#')
      const target = path === '' ? page : join(page, '..', path)
      t.ok(existsSync(join(ROOT, target)), `${page}: ${link}`)
      if (anchor !== undefined) t.ok(anchorsIn(target).includes(anchor), `${page}: ${link}`)
    }
  }
  t.ok(found > 30, `${found} links`)
})

t.test('a reader finds every page from the README', async (t) => {
  const links = linksIn('README.md').map((link) => link.split('#')[0])
  for (const page of ALL.filter((page) => page !== 'README.md')) t.ok(links.includes(page), page)
})

t.test('the README is short', async (t) => {
  t.ok(read('README.md').split('\n').length <= 250)
})

t.test('a page with snippets has a test', async (t) => {
  for (const page of PAGES.filter((page) => snippetsIn(page).length > 0)) {
    const test = `test/documentation/${page.replace(/^docs\//, '').replace(/\.md$/, '').toLowerCase()}.test.ts`
    t.ok(existsSync(join(ROOT, test)) && read(test).includes(page), test)
  }
})
